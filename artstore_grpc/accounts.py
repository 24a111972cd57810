"""Service accounts: who may be made, listed, changed, suspended and deleted.

Nobody creates or widens an account beyond the scopes they hold. How a change is carried out: changes.py; how secrets
change hands: rotation.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from artstore_grpc import fields, filters, pages, rotation_policies, rotations, subjects
from artstore_grpc.call import Caller
from artstore_grpc.changes import Changes, Target, forbid_oneself, require_scopes
from artstore_grpc.descriptions import described
from artstore_grpc.errors import (
    AlreadyExists,
    FailedPrecondition,
    invalid,
)
from artstore_grpc.model import (
    BY_HAND,
    DEFAULT_RATE_LIMIT,
    Account,
    AccountQuery,
    Environment,
    PublicKey,
    Role,
    RotationMode,
    RotationPolicy,
)
from artstore_grpc.records import EventKind
from artstore_grpc.replays import Answer, Retry
from artstore_grpc.rotation import new_secret
from artstore_grpc.secrets import Hasher
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.store.protocol import Store, Unit
from artstore_grpc.vault import Vault


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
    public_keys: tuple[PublicKey, ...] = ()
    certificate_subject: str = ""
    rotation_policy: RotationPolicy = BY_HAND
    without_secret: bool = False
    """Makes no secret: the account authenticates by its keys or certificates alone."""
    is_system: bool = False


class Accounts:
    """The rules of accounts. Callers are authenticated and have passed the policy table."""

    def __init__(
        self,
        *,
        store: Store,
        changes: Changes,
        hasher: Hasher,
        vault: Vault,
        environment: Environment,
        sinks: Sinks,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._changes = changes
        self._hasher = hasher
        self._vault = vault
        self._environment = environment
        self._sinks = sinks
        self._now = now

    async def create(self, draft: Draft, caller: Caller | None, retry: Retry | None = None) -> Answer:
        """A new account with its first secret, unless it is to have none. A `caller` of None is the installation
        itself. Raises InvalidRequest, PermissionDenied, AlreadyExists."""
        if draft.without_secret and not (draft.public_keys or draft.certificate_subject):
            raise invalid("without_secret", "needs an account with public_keys or a certificate_subject")
        if draft.without_secret and draft.rotation_policy.mode is RotationMode.MANAGED:
            raise invalid("without_secret", "contradicts a managed rotation_policy")
        account = self.drafted(draft)
        require_scopes(caller, account)
        if retry is not None and (before := await self._changes.before(retry)) is not None:
            return before
        text, secret = "", None
        if not draft.without_secret:
            made, secret = await new_secret(self._hasher, self._now, account)
            text, account = made.text, replace(account, secrets=(secret,))
        account = rotations.scheduled(account, self._now())

        async def insert(unit: Unit) -> Answer:
            if draft.is_system and await unit.system_account_exists():
                raise AlreadyExists("The installation has its administrator.", reason="ALREADY_BOOTSTRAPPED")
            await unit.add_account(account)
            self._changes.record(unit, caller, EventKind.ACCOUNT_CREATED, account, after=described(account))
            return Answer(account, secret, text)

        return await self._changes.answered(insert, retry)

    async def get(self, id: str) -> Account:
        """An account, deleted ones too until they are purged, with all that is known of it. Raises NotFound."""
        (whole,) = await self._store.shown([await self._changes.get(id)])
        return whole

    async def list(
        self, *, page_size: int, page_token: str, filter: str, show_deleted: bool
    ) -> tuple[list[Account], str]:
        """A page of accounts and the token of the next one. Raises InvalidRequest."""
        size = pages.size(page_size)
        query = (filter, str(show_deleted))
        place = pages.place(self._vault, page_token, *query)
        asked = AccountQuery(size + 1, filters.parse(filter), show_deleted, place)
        found = await self._store.shown(await self._store.accounts(asked, self._now()))
        page = pages.fitting(found[:size], weight)
        more = len(found) > len(page)
        return page, pages.token(self._vault, (page[-1].create_time, page[-1].id), *query) if more else ""

    async def update(self, target: Target, changes: Mapping[str, Any], caller: Caller) -> Account:
        """Changes fields by name. Raises InvalidRequest, PermissionDenied, EtagMismatch, AlreadyExists."""

        async def change(unit: Unit, account: Account) -> Account:
            require_scopes(caller, account)
            changed = checked(replace(account, **changes))
            require_scopes(caller, changed)
            if changed.rotation_policy != account.rotation_policy:
                changed = self.rescheduled(changed)
            # Keys too, and where new secrets go: a stolen token must not become a lasting credential (ADR 0012).
            if rights(changed) != rights(account) or credentials(changed) != credentials(account):
                forbid_oneself(caller, account)
            return changed

        return await self._changes.changed(target, caller, EventKind.ACCOUNT_UPDATED, change)

    async def delete(self, target: Target, caller: Caller) -> Account:
        """Deletes softly. Raises FailedPrecondition for a system account, for oneself, and for a deleted one."""

        async def change(unit: Unit, account: Account) -> Account:
            if account.is_system:
                raise FailedPrecondition("A system account can't be deleted.", reason="SYSTEM_ACCOUNT")
            forbid_oneself(caller, account)
            await unit.void_replays(account.id)
            kept = rotations.delivered(account)  # nobody has what waits to be delivered, and nobody is to get it
            return replace(account, delete_time=self._now(), secrets=kept, delivery=None)

        return await self._changes.changed(target, caller, EventKind.ACCOUNT_DELETED, change)

    async def undelete(self, target: Target, caller: Caller) -> Account:
        """Restores a deleted account. Raises FailedPrecondition for one that isn't deleted."""

        async def change(unit: Unit, account: Account) -> Account:
            require_scopes(caller, account)
            return replace(account, delete_time=None)

        return await self._changes.changed(target, caller, EventKind.ACCOUNT_UNDELETED, change, deleted=True)

    async def suspend(self, target: Target, caller: Caller) -> Account:
        """Suspends. Raises FailedPrecondition for a suspended one, and for oneself."""

        async def change(unit: Unit, account: Account) -> Account:
            if account.suspended:
                raise FailedPrecondition("The account is suspended already.", reason="ACCOUNT_SUSPENDED")
            forbid_oneself(caller, account)
            await unit.void_replays(account.id)
            return replace(account, suspended=True)

        return await self._changes.changed(target, caller, EventKind.ACCOUNT_SUSPENDED, change)

    async def activate(self, target: Target, caller: Caller) -> Account:
        """Ends a suspension. Raises FailedPrecondition for one that isn't suspended."""

        async def change(unit: Unit, account: Account) -> Account:
            require_scopes(caller, account)
            if not account.suspended:
                raise FailedPrecondition("The account is not suspended.", reason="ACCOUNT_NOT_SUSPENDED")
            return replace(account, suspended=False)

        return await self._changes.changed(target, caller, EventKind.ACCOUNT_ACTIVATED, change)

    def rescheduled(self, account: Account) -> Account:
        """The account under the policy that it is to have. Raises InvalidRequest."""
        policy = rotation_policies.checked(account.rotation_policy, self._sinks)
        rotation_policies.check_account(account := replace(account, rotation_policy=policy))
        return rotations.scheduled(account, self._now())

    def drafted(self, draft: Draft) -> Account:
        """A new account that nobody has stored yet, with a fresh id and client_id. Raises InvalidRequest."""
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
            public_keys=draft.public_keys,
            certificate_subject=draft.certificate_subject,
            rotation_policy=rotation_policies.checked(draft.rotation_policy, self._sinks),
            is_system=draft.is_system,
        )
        return checked(account)


def weight(account: Account) -> int:
    """About how many bytes an account takes on the wire."""
    texts = (
        account.name,
        account.description,
        account.certificate_subject,
        *account.granted_scopes,
        *account.audiences,
        *account.served_audiences,
    )
    keys = sum(100 + len(key.kid) + sum(map(len, key.jwk.values())) for key in account.public_keys)
    uses = sum(20 + len(use.source) for secret in account.secrets for use in secret.uses)
    policy = account.rotation_policy
    words = len(policy.schedule) + len(policy.sink) + len(policy.destination.encode())
    return 350 + sum(len(text.encode()) + 3 for text in texts) + keys + uses + words


def rights(account: Account) -> tuple[object, ...]:
    """What an account may do; nobody changes their own."""
    return account.role, account.scopes, account.audiences, account.introspection_only


def credentials(account: Account) -> tuple[object, ...]:
    """What an account authenticates with, as far as fields say it; nobody changes their own."""
    return account.public_keys, account.certificate_subject, account.rotation_policy


def checked(account: Account) -> Account:
    """The account with its fields checked and in their normal form. Raises InvalidRequest."""
    return replace(
        account,
        name=fields.name(account.name),
        description=fields.description(account.description),
        rate_limit=fields.rate_limit(account.rate_limit),
        certificate_subject=subjects.subject(account.certificate_subject),
        scopes=fields.scopes(account.scopes, account.role),
        audiences=fields.audiences(account.audiences),
        served_audiences=fields.audiences(account.served_audiences, "served_audiences"),
    )
