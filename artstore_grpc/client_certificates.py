"""Clients that prove themselves by the certificate of their connection (`tls_client_auth`, RFC 8705 §2.1).

The listener has verified it against the CAs for clients; here it is asked whether it is the account's: whether it has
the subject that the account names. Somebody else's certificate is no proof, and is refused like a wrong secret.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from artstore_grpc.credentials import CLIENT_ID
from artstore_grpc.errors import InvalidClient
from artstore_grpc.model import Account, State
from artstore_grpc.refusals import Refusals, about
from artstore_grpc.replica import Replica


class ClientCertificates:
    """Proves accounts by the subjects of a verified certificate."""

    def __init__(self, *, replica: Replica, refusals: Refusals, now: Callable[[], datetime]) -> None:
        self._replica = replica
        self._refusals = refusals
        self._now = now

    async def prove(self, client_id: str, subjects: frozenset[str], source: str) -> Account:
        """The live account of this client_id, if the certificate is its. Raises InvalidClient with the cause for the
        log, RateLimited after too many failures, StoreUnavailable."""
        if not CLIENT_ID.fullmatch(client_id):
            raise InvalidClient(cause="not a client_id of ours")
        account = self._replica.remembered(client_id)
        known = account is not None
        if account is None:
            account = await self._replica.look_up(client_id)
        cause = refusal(account, subjects, self._now())
        if account is None or cause:
            raise await self._refusals.of(
                about(cause, account), account, claimed=client_id, what="certificate", source=source, known=known
            )
        return account


def refusal(account: Account | None, subjects: frozenset[str], now: datetime) -> str:
    """Why a certificate of these subjects isn't the account's, for the log; empty if it is."""
    if account is None:
        return "unknown client_id"
    if not account.certificate_subject:
        return "no certificate authenticates it"
    if account.certificate_subject not in subjects:
        return "another's certificate"
    state = account.state(now)
    return "" if state is State.ACTIVE else f"account is {state.value}"
