"""Accounts that another system had, taken over with the ids and the secrets' hashes that their clients use (ADR 0014).

Each account of a batch is judged by itself, and all that are to be created are written in one transaction. Who sends a
batch again finds what it made: an account that is as it was asked for is no error. Nothing here ever sees a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum

from artstore_grpc import secrets
from artstore_grpc.accounts import Accounts, Draft
from artstore_grpc.audiences import Audiences
from artstore_grpc.call import Caller
from artstore_grpc.changes import Changes, is_uuid, require_scopes
from artstore_grpc.descriptions import described
from artstore_grpc.errors import (
    BUSY_RETRY,
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    IdentityError,
    Overloaded,
    invalid,
)
from artstore_grpc.fields import imported_client_id, imported_expire_time, imported_hash
from artstore_grpc.model import SECRET_LIFETIME, Account, Secret
from artstore_grpc.records import EventKind
from artstore_grpc.replica import Replica
from artstore_grpc.store.protocol import Store

MAX_BATCH = 100
"""One transaction's: some 50 ms, during which nobody else writes on SQLite."""
TRIES = 5
"""How often a batch is judged anew because somebody took a name or a client_id of it meanwhile."""
NOT_FIELDS = {"without_secret", "is_system"}
COMPARED = tuple(each.name for each in fields(Draft) if each.name not in NOT_FIELDS)
"""What an account must have as it is asked for, to count as imported before; beside its client_id and its secret."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An account to import: an empty `client_id` means a new one, an empty `secret_hash` no secret."""

    draft: Draft
    client_id: str = ""
    secret_hash: str = field(default="", repr=False)
    secret_expire_time: datetime | None = None


class Outcome(StrEnum):
    """What became of an account that was to be imported."""

    CREATED = "created"
    UNCHANGED = "unchanged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of it, and the account, or why it failed."""

    outcome: Outcome
    account: Account | None = None
    error: IdentityError | None = None


class Imports:
    """The rules of importing."""

    def __init__(
        self,
        *,
        store: Store,
        replica: Replica,
        accounts: Accounts,
        changes: Changes,
        audiences: Audiences,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._replica = replica
        self._accounts = accounts
        self._changes = changes
        self._audiences = audiences
        self._now = now

    async def run(
        self, asked: Sequence[Asked | IdentityError], caller: Caller, *, validate_only: bool = False
    ) -> list[Imported]:
        """What became of each, in order; an error stands for one that could not even be read. With `validate_only` all
        is judged and nothing written. Raises InvalidRequest for none and for too many, Overloaded when others keep
        taking the same names."""
        if not 1 <= len(asked) <= MAX_BATCH:
            raise invalid("service_accounts", f"must be 1 to {MAX_BATCH}")
        drafted = [self._drafted(each, caller) for each in asked]
        for _ in range(TRIES):
            try:
                return await self._carried_out(drafted, caller, validate_only=validate_only)
            except Conflict:
                continue
        raise Overloaded(reason="IMPORTS_COLLIDE", retry_after=BUSY_RETRY)

    def _drafted(self, asked: Asked | IdentityError, caller: Caller) -> Wanted | IdentityError:
        """The account as it would be created, or why it can't be, whatever accounts there are."""
        if isinstance(asked, IdentityError):
            return asked
        try:
            account = self._accounts.drafted(asked.draft)
            if asked.client_id:
                account = replace(account, client_id=imported_client_id(asked.client_id))
            secret = self._secret(asked, account)
            require_scopes(caller, account)
            account = self._accounts.rescheduled(replace(account, secrets=(secret,) if secret else ()))
        except IdentityError as error:
            return error
        return Wanted(asked, account)

    def _secret(self, asked: Asked, account: Account) -> Secret | None:
        now = account.create_time
        if not asked.secret_hash:
            if asked.secret_expire_time:
                raise invalid("secret_expire_time", "needs a secret_hash")
            return None
        hashed = imported_hash(asked.secret_hash)
        expire_time = now + SECRET_LIFETIME
        if asked.secret_expire_time:
            expire_time = imported_expire_time(asked.secret_expire_time, now)
        return Secret(secrets.imported_id(hashed, account.client_id), hashed, now, expire_time, imported=True)

    async def _carried_out(
        self, drafted: Sequence[Wanted | IdentityError], caller: Caller, *, validate_only: bool
    ) -> list[Imported]:
        wanted = [each for each in drafted if isinstance(each, Wanted)]
        async with self._store.unit() as unit:
            found = await unit.rivals(
                [name for each in wanted for name in each.client_ids], [each.account.name for each in wanted]
            )
            known = Known(found, self._audiences)
            results = [known.judged(each) for each in drafted]
            created = [each.account for each in results if each.outcome is Outcome.CREATED and each.account]
            if not validate_only:
                await unit.add_accounts(created)
                for account in created:
                    self._changes.record(unit, caller, EventKind.ACCOUNT_CREATED, account, **detail(account))
        if validate_only:
            return [unmade(result, each) for result, each in zip(results, drafted, strict=True)]
        if created:
            await self._replica.after_write()
        return results


@dataclass(frozen=True, slots=True)
class Wanted:
    """An account as it would be created, and what was asked for."""

    asked: Asked
    account: Account

    @property
    def client_ids(self) -> tuple[str, ...]:
        """What no other account may be called: its client_id, also as an id would be written."""
        client_id = self.account.client_id
        return (client_id, client_id.lower()) if is_uuid(client_id) else (client_id,)


class Known:
    """The accounts that those of a batch could collide with, the batch's own included."""

    def __init__(self, accounts: Iterable[Account], audiences: Audiences) -> None:
        self._audiences = audiences
        self._by_client_id: dict[str, Account] = {}
        self._by_name: dict[str, Account] = {}
        self._ids: set[str] = set()
        for account in accounts:
            self._add(account)

    def judged(self, wanted: Wanted | IdentityError) -> Imported:
        """Created, and known from now on; unchanged; or failed."""
        if isinstance(wanted, IdentityError):
            return Imported(Outcome.FAILED, error=wanted)
        try:
            before = self._before(wanted)
        except IdentityError as error:
            return Imported(Outcome.FAILED, error=error)
        if before is not None:
            return Imported(Outcome.UNCHANGED, before)
        self._add(wanted.account)
        return Imported(Outcome.CREATED, wanted.account)

    def _add(self, account: Account) -> None:
        self._by_client_id[account.client_id] = account
        self._by_name[account.name] = account
        self._ids.add(account.id)

    def _before(self, wanted: Wanted) -> Account | None:
        """The account that was made of this before; None when there is none. Raises AlreadyExists for another one that
        has its client_id or its name, FailedPrecondition for a deleted one."""
        account, given = wanted.account, bool(wanted.asked.client_id)
        before = self._by_client_id.get(account.client_id) if given else self._by_name.get(account.name)
        if before is None:
            if not self._ids.isdisjoint(wanted.client_ids):
                raise AlreadyExists("The client_id is another account's id.", reason="CLIENT_ID_TAKEN")
            if account.name in self._by_name:
                raise AlreadyExists("An account of this name exists.", reason="NAME_TAKEN")
            return None
        what, reason = ("client_id", "CLIENT_ID_TAKEN") if given else ("name", "NAME_TAKEN")
        if before.delete_time:
            raise FailedPrecondition(f"The account of this {what} is deleted.", reason="ACCOUNT_DELETED")
        if differing := self._differing(before, wanted):
            raise AlreadyExists(f"An account of this {what} exists; it differs in {differing}.", reason=reason)
        return before

    def _differing(self, before: Account, wanted: Wanted) -> str:
        """The fields in which an account is not as it is asked for; defaults count as what they stand for."""
        old, new = (
            replace(each, scopes=each.granted_scopes, audiences=self._audiences.allowed(each))
            for each in (before, wanted.account)
        )
        differing = [name for name in COMPARED if getattr(old, name) != getattr(new, name)]
        return ", ".join([*differing, *secret_differences(before, wanted.asked)])


def secret_differences(before: Account, asked: Asked) -> list[str]:
    """Whether the secret is another one than was asked for. Its id says which hash it was made of, also after that was
    upgraded. Once it was rotated its end has moved, and that counts no more."""
    if not asked.secret_hash:
        return []
    made_of_it = secrets.imported_id(asked.secret_hash, before.client_id)
    same = next((secret for secret in before.secrets if secret.imported and secret.id == made_of_it), None)
    if same is None:
        return ["secret_hash"]
    moved = asked.secret_expire_time not in (None, same.expire_time) and before.secrets == (same,)
    return ["secret_expire_time"] if moved else []


def detail(account: Account) -> dict[str, object]:
    """What the ledger says of an import. The cost is told so that every process knows how much work must hide whether
    an account has an imported secret (attempts.py)."""
    costs = [secrets.hash_cost(secret.hash) for secret in account.secrets]
    return {"after": described(account), "imported": True, **({"secret_cost": costs[0]} if costs else {})}


def unmade(result: Imported, wanted: Wanted | IdentityError) -> Imported:
    """The result without the ids of an account that was not made: another run would make others."""
    if result.outcome is not Outcome.CREATED or result.account is None or isinstance(wanted, IdentityError):
        return result
    return replace(result, account=replace(result.account, id="", client_id=wanted.asked.client_id, secrets=()))
