"""Service accounts and their secrets: who may be made, changed, suspended, deleted, and how secrets change hands.

Every change and its ledger row are one unit. Nobody creates, widens or resets the credentials of an account that
holds a scope they lack. At most two secrets of an account are live.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from artstore_grpc import fields, filters, pages, secrets
from artstore_grpc.call import Caller
from artstore_grpc.errors import (
    AlreadyExists,
    Conflict,
    EtagMismatch,
    FailedPrecondition,
    Internal,
    NotFound,
    PermissionDenied,
    invalid,
)
from artstore_grpc.model import (
    DEFAULT_OVERLAP,
    DEFAULT_RATE_LIMIT,
    MAX_LIVE_SECRETS,
    SECRET_LIFETIME,
    Account,
    AccountQuery,
    Environment,
    Event,
    EventKind,
    Role,
    Secret,
)
from artstore_grpc.replays import CONSTRAINT, Answer, Replays, Retry
from artstore_grpc.replica import Replica
from artstore_grpc.secrets import Hasher, NewSecret
from artstore_grpc.store.protocol import Store, Unit
from artstore_grpc.usage import Usage
from artstore_grpc.vault import Vault

ETAG_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Draft:
    """What a new account shall be; zero values mean the defaults."""

    name: str
    role: Role
    description: str = ""
    rate_limit: int = 0
    scopes: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    served_audiences: tuple[str, ...] = ()
    introspection_only: bool = False
    is_system: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Which account a change is for, and the etag it must have; empty: any."""

    id: str
    etag: str = ""


def etag(account: Account) -> str:
    """Changes with every version of an account, and differs between accounts (AIP-154)."""
    return hashlib.sha256(f"{account.id}:{account.version}".encode()).hexdigest()[:ETAG_LENGTH]


class Accounts:
    """The rules of accounts. Callers are authenticated and have passed the policy table."""

    def __init__(
        self,
        *,
        store: Store,
        replica: Replica,
        hasher: Hasher,
        usage: Usage,
        vault: Vault,
        environment: Environment,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._replica = replica
        self._hasher = hasher
        self._usage = usage
        self._vault = vault
        self._replays = Replays(vault)
        self._environment = environment
        self._now = now

    async def create(self, draft: Draft, caller: Caller | None, retry: Retry | None = None) -> Answer:
        """A new account with its first secret. A `caller` of None is the installation itself. Raises InvalidRequest,
        PermissionDenied, AlreadyExists."""
        account = self._drafted(draft)
        require_scopes(caller, account)
        if retry is not None and (before := await self._before(retry)) is not None:
            return before
        made, secret = await self._new_secret()
        account = replace(account, secrets=(secret,))

        async def insert(unit: Unit) -> Answer:
            if draft.is_system and await unit.system_account_exists():
                raise AlreadyExists("The installation has its administrator.", reason="ALREADY_BOOTSTRAPPED")
            await unit.add_account(account)
            self._record(unit, caller, EventKind.ACCOUNT_CREATED, account, after=described(account))
            return Answer(account, secret, made.text)

        return await self._answered(insert, retry)

    async def get(self, id: str) -> Account:
        """An account, deleted ones too until they are purged. Raises NotFound."""
        key = fields.account_id(id)
        account = await (self._store.account(key) if is_uuid(key) else self._store.account_by_client_id(key))
        return self._present(account)

    async def list(
        self, *, page_size: int, page_token: str, filter: str, show_deleted: bool
    ) -> tuple[list[Account], str]:
        """A page of accounts and the token of the next one. Raises InvalidRequest."""
        size = pages.size(page_size)
        query = (filter, str(show_deleted))
        place = pages.place(self._vault, page_token, *query)
        asked = AccountQuery(size + 1, filters.parse(filter), show_deleted, place)
        found = await self._store.accounts(asked, self._now())
        page = found[:size]
        more = len(found) > size
        return page, pages.token(self._vault, (page[-1].create_time, page[-1].id), *query) if more else ""

    async def update(self, target: Target, changes: Mapping[str, Any], caller: Caller) -> Account:
        """Changes fields by name. Raises InvalidRequest, PermissionDenied, EtagMismatch, AlreadyExists."""

        async def change(unit: Unit, account: Account) -> Account:
            require_scopes(caller, account)
            changed = checked(replace(account, **changes))
            require_scopes(caller, changed)
            return changed

        return await self._changed(target, caller, EventKind.ACCOUNT_UPDATED, change)

    async def delete(self, target: Target, caller: Caller) -> Account:
        """Deletes softly. Raises FailedPrecondition for a system account, for oneself, and for a deleted one."""

        async def change(unit: Unit, account: Account) -> Account:
            if account.is_system:
                raise FailedPrecondition("A system account can't be deleted.", reason="SYSTEM_ACCOUNT")
            forbid_oneself(caller, account)
            await unit.void_replays(account.id)
            return replace(account, delete_time=self._now())

        return await self._changed(target, caller, EventKind.ACCOUNT_DELETED, change)

    async def undelete(self, target: Target, caller: Caller) -> Account:
        """Restores a deleted account. Raises FailedPrecondition for one that isn't deleted."""

        async def change(unit: Unit, account: Account) -> Account:
            require_scopes(caller, account)
            return replace(account, delete_time=None)

        return await self._changed(target, caller, EventKind.ACCOUNT_UNDELETED, change, deleted=True)

    async def suspend(self, target: Target, caller: Caller) -> Account:
        """Suspends. Raises FailedPrecondition for a suspended one, and for oneself."""

        async def change(unit: Unit, account: Account) -> Account:
            if account.suspended:
                raise FailedPrecondition("The account is suspended already.", reason="ACCOUNT_SUSPENDED")
            forbid_oneself(caller, account)
            await unit.void_replays(account.id)
            return replace(account, suspended=True)

        return await self._changed(target, caller, EventKind.ACCOUNT_SUSPENDED, change)

    async def activate(self, target: Target, caller: Caller) -> Account:
        """Ends a suspension. Raises FailedPrecondition for one that isn't suspended."""

        async def change(unit: Unit, account: Account) -> Account:
            require_scopes(caller, account)
            if not account.suspended:
                raise FailedPrecondition("The account is not suspended.", reason="ACCOUNT_NOT_SUSPENDED")
            return replace(account, suspended=False)

        return await self._changed(target, caller, EventKind.ACCOUNT_ACTIVATED, change)

    async def rotate_secret(
        self, target: Target, caller: Caller, overlap: timedelta | None, retry: Retry | None = None
    ) -> Answer:
        """A new secret; the newest of the old ones lives on for `overlap`. Raises FailedPrecondition when two that
        were used are live, PermissionDenied for an account's own access token."""
        overlap = fields.overlap(DEFAULT_OVERLAP if overlap is None else overlap)
        current = await self.get(target.id)
        self._may_rotate(caller, current)
        if retry is not None and (before := await self._before(retry)) is not None:
            return before
        if current.delete_time is not None:
            raise deleted_error()
        await self._usage.flush()
        made, secret = await self._new_secret()

        async def rotate(unit: Unit) -> Answer:
            previous: tuple[Secret, ...] = ()

            async def change(unit: Unit, account: Account) -> Account:
                nonlocal previous
                self._may_rotate(caller, account)
                kept, previous = self._kept(account, overlap)
                await unit.void_replays(account.id)
                return replace(account, secrets=(secret, *kept))

            detail = {"secret_id": secret.id, "overlap_seconds": int(overlap.total_seconds())}
            account = await self._change(unit, target, caller, EventKind.SECRET_ROTATED, change, detail=detail)
            return Answer(account, secret, made.text, previous)

        return await self._answered(rotate, retry)

    async def revoke_secret(self, target: Target, secret_id: str, caller: Caller) -> Account:
        """Ends a secret now. Raises NotFound for one that the account doesn't have."""

        async def change(unit: Unit, account: Account) -> Account:
            kept = tuple(secret for secret in account.secrets if secret.id != secret_id)
            if len(kept) == len(account.secrets):
                raise NotFound("The account has no such secret.", reason="SECRET_NOT_FOUND")
            await unit.void_replays(account.id)
            return replace(account, secrets=kept)

        if not secret_id:
            raise invalid("secret_id", "is missing")
        detail = {"secret_id": secret_id}
        return await self._changed(target, caller, EventKind.SECRET_REVOKED, change, detail=detail)

    # How a change happens

    async def _answered(self, work: Callable[[Unit], Awaitable[Answer]], retry: Retry | None) -> Answer:
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
        except Conflict as conflict:
            if retry is not None and (before := await self._before(retry)) is not None:
                return before
            raise taken(conflict) from conflict
        await self._replica.after_write()
        return answer

    async def _before(self, retry: Retry) -> Answer | None:
        return self._replays.again(await self._store.replay(self._replays.key(retry)), retry, self._now())

    async def _changed(
        self,
        target: Target,
        caller: Caller,
        kind: EventKind,
        change: Callable[[Unit, Account], Awaitable[Account]],
        *,
        deleted: bool = False,
        detail: Mapping[str, Any] | None = None,
    ) -> Account:
        try:
            async with self._store.unit() as unit:
                account = await self._change(unit, target, caller, kind, change, deleted=deleted, detail=detail)
        except Conflict as conflict:
            raise taken(conflict) from conflict
        await self._replica.after_write()
        return account

    async def _change(
        self,
        unit: Unit,
        target: Target,
        caller: Caller,
        kind: EventKind,
        change: Callable[[Unit, Account], Awaitable[Account]],
        *,
        deleted: bool = False,
        detail: Mapping[str, Any] | None = None,
    ) -> Account:
        """Locks, checks the etag and whether the account is deleted, changes, saves and records."""
        key = fields.account_id(target.id)
        before = self._present(await (unit.account(key) if is_uuid(key) else unit.account_by_client_id(key)))
        if target.etag and target.etag != etag(before):
            raise EtagMismatch
        if (before.delete_time is not None) != deleted:
            raise (
                deleted_error()
                if before.delete_time
                else FailedPrecondition("The account is not deleted.", reason="ACCOUNT_NOT_DELETED")
            )
        after = replace(await change(unit, before), version=before.version + 1, update_time=self._now())
        await unit.save_account(after)
        self._record(unit, caller, kind, after, **differences(before, after), **(detail or {}))
        return after

    def _record(self, unit: Unit, caller: Caller | None, kind: EventKind, account: Account, **detail: Any) -> None:
        actor = caller.account.client_id if caller else "system"
        unit.record(Event(self._now(), actor, kind, account.id, {"client_id": account.client_id, **detail}))

    def _present(self, account: Account | None) -> Account:
        """The account, unless there is none or it is past its purge time."""
        if account is None or (account.purge_time and account.purge_time <= self._now()):
            raise NotFound
        return account

    def _drafted(self, draft: Draft) -> Account:
        now = self._now()
        account = Account(
            id=str(uuid.uuid4()),
            client_id=fields.client_id(self._environment, draft.name),
            name=draft.name,
            role=draft.role,
            create_time=now,
            update_time=now,
            description=draft.description,
            rate_limit=draft.rate_limit or DEFAULT_RATE_LIMIT,
            scopes=draft.scopes,
            audiences=draft.audiences,
            served_audiences=draft.served_audiences,
            introspection_only=draft.introspection_only,
            is_system=draft.is_system,
        )
        return checked(account)

    async def _new_secret(self) -> tuple[NewSecret, Secret]:
        made = secrets.generate()
        hashed = await self._hasher.hash(made.text)
        now = self._now()
        return made, Secret(made.id, hashed, now, now + SECRET_LIFETIME)

    def _may_rotate(self, caller: Caller, account: Account) -> None:
        """With a secret one's own only; with a token another's only, and none that holds a scope the caller lacks."""
        own = account.id == caller.account.id
        if caller.secret_id:
            if not own:
                raise PermissionDenied("A secret rotates only its own account's.", reason="NOT_YOUR_ACCOUNT")
            return
        if own:
            raise PermissionDenied(
                "An account rotates its own secret with that secret, not with a token.", reason="SECRET_REQUIRED"
            )
        require_scopes(caller, account)

    def _kept(self, account: Account, overlap: timedelta) -> tuple[tuple[Secret, ...], tuple[Secret, ...]]:
        """Which old secrets live on beside a new one (at most one), and all that the rotation ended or shortened."""
        now = self._now()
        live = account.live_secrets(now)
        keep = live
        if len(live) >= MAX_LIVE_SECRETS:
            unused = [secret for secret in live if secret.last_used_time is None and secret.tag is None]
            if not unused:
                raise FailedPrecondition(
                    "Two secrets are live and both were used; revoke one first.",
                    reason="TWO_LIVE_SECRETS",
                )
            keep = tuple(secret for secret in live if secret not in unused[:1])
        ends = now + overlap
        kept = tuple(replace(secret, expire_time=min(secret.expire_time, ends)) for secret in keep) if overlap else ()
        return kept[:1], live


def checked(account: Account) -> Account:
    """The account with its fields checked and in their normal form. Raises InvalidRequest."""
    return replace(
        account,
        name=fields.name(account.name),
        description=fields.description(account.description),
        rate_limit=fields.rate_limit(account.rate_limit),
        scopes=fields.scopes(account.scopes, account.role),
        audiences=fields.audiences(account.audiences),
        served_audiences=fields.audiences(account.served_audiences, "served_audiences"),
    )


def require_scopes(caller: Caller | None, account: Account) -> None:
    """Raises PermissionDenied when the account holds a scope that the caller lacks. The installation lacks none."""
    if caller is not None and not set(account.granted_scopes) <= caller.scopes:
        raise PermissionDenied("The account holds a scope that this caller lacks.", reason="SCOPE_NOT_HELD")


def forbid_oneself(caller: Caller, account: Account) -> None:
    """An administrator that shuts itself out could not come back."""
    if account.id == caller.account.id:
        raise FailedPrecondition("An account can't suspend or delete itself.", reason="OWN_ACCOUNT")


def deleted_error() -> FailedPrecondition:
    return FailedPrecondition("The account is deleted; undelete it first.", reason="ACCOUNT_DELETED")


def taken(conflict: Conflict) -> Exception:
    """What a unique constraint's refusal means to the caller."""
    if conflict.constraint == "uq_accounts_name":
        return AlreadyExists("An account of this name exists.", reason="NAME_TAKEN")
    if conflict.constraint == CONSTRAINT:
        return AlreadyExists("This request was carried out before.", reason="REQUEST_ID_SPENT")
    return Internal(cause=f"unexpected conflict on {conflict.constraint}")


def described(account: Account) -> dict[str, Any]:
    """An account as the ledger tells it: what verbs and masks change, never hashes."""
    return {
        "name": account.name,
        "description": account.description,
        "role": account.role.value,
        "rate_limit": account.rate_limit,
        "scopes": list(account.scopes),
        "audiences": list(account.audiences),
        "served_audiences": list(account.served_audiences),
        "introspection_only": account.introspection_only,
        "suspended": account.suspended,
        "deleted": account.delete_time is not None,
        "secrets": {secret.id: secret.expire_time.isoformat() for secret in account.secrets},
    }


def differences(before: Account, after: Account) -> dict[str, dict[str, Any]]:
    """What changed, before and after."""
    old, new = described(before), described(after)
    changed = [name for name in old if old[name] != new[name]]
    return {"before": {name: old[name] for name in changed}, "after": {name: new[name] for name in changed}}


def is_uuid(id: str) -> bool:
    try:
        return str(uuid.UUID(id)) == id.lower()
    except ValueError:
        return False
