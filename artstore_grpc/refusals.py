"""How a proof that isn't a secret is refused: after the same work for every account, and counted as a failure."""

from __future__ import annotations

from artstore_grpc.errors import IdentityError, InvalidClient, RateLimited
from artstore_grpc.failures import Failures
from artstore_grpc.model import Account
from artstore_grpc.replica import NOBODY, Replica


def about(cause: str, account: Account | None) -> str:
    """A cause for the log and for ExplainDenial: with the account where there is one, never with what was sent."""
    return f"{cause}: {account.client_id}" if account else cause


def names_of(account: Account | None) -> tuple[str, str]:
    """As `IdentityError.whose` has it."""
    return (account.id, account.client_id) if account else ("", "")


class Refusals:
    """Refuses what tries to prove an account, of which `claimed` is the client_id that was sent."""

    def __init__(self, replica: Replica, failures: Failures) -> None:
        self._replica = replica
        self._failures = failures

    async def of(
        self, cause: str, account: Account | None, *, claimed: str, what: str, source: str, known: bool
    ) -> IdentityError:
        """What the caller is told; `cause` is as `about` makes it, `what` was tried, `known`: the account was in memory
        before it was looked up. Raises StoreUnavailable."""
        # In an outage accounts in memory would otherwise fail in another way than those that aren't.
        self._replica.require_database()
        if known:  # or the time that a refusal takes would tell which accounts are in memory
            await self._replica.reread(NOBODY)
        error: IdentityError = InvalidClient(cause=cause)
        try:
            await self._failures.look_at_source(source, cause)
            await self._failures.admit(claimed, what, source, cause)
            await self._failures.failed(source)
        except RateLimited as limited:
            error = limited
        return error.of(*names_of(account))
