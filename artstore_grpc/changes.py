"""How an account changes: a unit locks it, checks its etag, saves and records it, and keeps the answer to a retry.

Every change and its ledger row are one transaction. What a change may be is for accounts.py and rotation.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from artstore_grpc import fields
from artstore_grpc.call import Caller
from artstore_grpc.descriptions import differences
from artstore_grpc.errors import (
    AlreadyExists,
    Conflict,
    EtagMismatch,
    FailedPrecondition,
    Internal,
    NotFound,
    PermissionDenied,
)
from artstore_grpc.model import Account
from artstore_grpc.records import SYSTEM, Event, EventKind
from artstore_grpc.replays import CONSTRAINT, Answer, Replays, Retry
from artstore_grpc.replica import Replica
from artstore_grpc.store.protocol import Store, Unit

ETAG_LENGTH = 16

Change = Callable[[Unit, Account], Awaitable[Account]]
"""What a verb does to a locked account; raises to leave everything as it was."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which account a change is for, and the etag it must have; empty: any."""

    id: str
    etag: str = ""


def etag(account: Account) -> str:
    """Changes with every version of an account, and differs between accounts (AIP-154)."""
    return hashlib.sha256(f"{account.id}:{account.version}".encode()).hexdigest()[:ETAG_LENGTH]


class Changes:
    """Carries changes out. After each the replica of this process has seen it, unless the database went away."""

    def __init__(self, *, store: Store, replica: Replica, replays: Replays, now: Callable[[], datetime]) -> None:
        self._store = store
        self._replica = replica
        self._replays = replays
        self._now = now

    async def get(self, id: str) -> Account:
        """An account, deleted ones too until they are purged. Raises NotFound."""
        return self.present(await named(self._store, id))

    async def answered(self, work: Callable[[Unit], Awaitable[Answer]], retry: Retry | None) -> Answer:
        """Runs the work and keeps its answer, in one unit; of two equal requests the second gets the first's."""
        try:
            async with self._store.unit() as unit:
                if retry is not None:
                    before = self._replays.again(await unit.replay(self._replays.key(retry)), retry, self._now())
                    if before is not None:
                        return before
                answer = await work(unit)
                if retry is not None:
                    await self._replays.keep(unit, retry, answer, self._now())
        except (Conflict, EtagMismatch, FailedPrecondition) as error:
            # The first of two equal requests may have ended while this one waited for the account.
            if retry is not None and (before := await self.before(retry)) is not None:
                return before
            raise (taken(error) if isinstance(error, Conflict) else error) from error
        await self._replica.after_write()
        return answer

    async def before(self, retry: Retry) -> Answer | None:
        return self._replays.again(await self._store.replay(self._replays.key(retry)), retry, self._now())

    async def changed(
        self,
        target: Target,
        caller: Caller,
        kind: EventKind,
        change: Change,
        *,
        deleted: bool = False,
        detail: Mapping[str, Any] | None = None,
    ) -> Account:
        try:
            async with self._store.unit() as unit:
                account = await self.change(unit, target, caller, kind, change, deleted=deleted, detail=detail)
        except Conflict as conflict:
            raise taken(conflict) from conflict
        await self._replica.after_write()
        return account

    async def change(
        self,
        unit: Unit,
        target: Target,
        caller: Caller,
        kind: EventKind,
        change: Change,
        *,
        deleted: bool = False,
        detail: Mapping[str, Any] | None = None,
    ) -> Account:
        """Locks, checks the etag and whether the account is deleted, changes, saves and records."""
        before = self.present(await named(unit, target.id))
        check(target, before, deleted=deleted)
        after = replace(await change(unit, before), version=before.version + 1, update_time=self._now())
        await unit.save_account(after)
        self.record(unit, caller, kind, after, **differences(before, after), **(detail or {}))
        return after

    def record(self, unit: Unit, caller: Caller | None, kind: EventKind, account: Account, **detail: Any) -> None:
        actor = caller.actor if caller else SYSTEM
        unit.record(Event(self._now(), actor, kind, account.id, {"client_id": account.client_id, **detail}))

    def present(self, account: Account | None) -> Account:
        """The account, unless there is none or it is past its purge time."""
        if account is None or (account.purge_time and account.purge_time <= self._now()):
            raise NotFound
        return account


async def named(place: Store | Unit, id: str) -> Account | None:
    """The account of this id, else of this client_id, which may look like an id where it was imported."""
    name = fields.account_id(id)
    found = await place.account(name.lower()) if is_uuid(name) else None
    return found or await place.account_by_client_id(name)


def voided(account: Account, now: datetime) -> Account:
    """The account with every token void that was issued to it so far."""
    return replace(account, epoch=account.epoch + 1, epoch_time=now)


def require_scopes(caller: Caller | None, account: Account) -> None:
    """Raises PermissionDenied when the account holds a scope that the caller lacks. The installation lacks none."""
    if caller is not None and not set(account.granted_scopes) <= caller.scopes:
        raise PermissionDenied("The account holds a scope that this caller lacks.", reason="SCOPE_NOT_HELD")


def forbid_oneself(caller: Caller, account: Account) -> None:
    """An administrator that shuts itself out could not come back."""
    if account.id == caller.account.id:
        raise FailedPrecondition(
            "An account can't suspend or delete itself, nor change what it may do, its keys or their rotation.",
            reason="OWN_ACCOUNT",
        )


def check(target: Target, account: Account, *, deleted: bool = False) -> None:
    """Raises EtagMismatch for another etag than the present one, FailedPrecondition for a deleted account, or where
    `deleted` is asked for one that isn't."""
    if target.etag and target.etag != etag(account):
        raise EtagMismatch
    if account.delete_time and not deleted:
        raise FailedPrecondition("The account is deleted; undelete it first.", reason="ACCOUNT_DELETED")
    if deleted and not account.delete_time:
        raise FailedPrecondition("The account is not deleted.", reason="ACCOUNT_NOT_DELETED")


def taken(conflict: Conflict) -> Exception:
    """What a unique constraint's refusal means to the caller."""
    if conflict.constraint == "uq_accounts_name":
        return AlreadyExists("An account of this name exists.", reason="NAME_TAKEN")
    if conflict.constraint == CONSTRAINT:
        return AlreadyExists("This request was carried out before.", reason="REQUEST_ID_SPENT")
    return Internal(cause=f"unexpected conflict on {conflict.constraint}")


def is_uuid(id: str) -> bool:
    return fields.UUID_FORM.fullmatch(id) is not None
