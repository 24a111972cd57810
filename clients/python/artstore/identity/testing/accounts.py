"""The accounts that the authority knows: made, found, suspended, deleted; and as the API shows them.

Nobody creates or changes an account beyond the scopes they hold, and nobody shuts themselves out. Everything is in
memory; whoever calls holds the authority's lock.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from artstore.identity.testing import account_fields
from artstore.identity.testing.public_keys import registered
from artstore.identity.testing.refusals import invalid, refused
from artstore.identity.testing.secrets import Secret, new_secret
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

DEFAULT_RATE_LIMIT = 100
RETENTION = timedelta(days=30)
"""How long a deleted account can be read and restored."""


@dataclass(eq=False)
class Account:
    """An account. `version` counts its changes; tokens of a lower `epoch` are void."""

    id: str
    client_id: str
    name: str
    role: str
    create_time: datetime
    update_time: datetime
    description: str = ""
    rate_limit: int = DEFAULT_RATE_LIMIT
    scopes: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    served_audiences: tuple[str, ...] = ()
    introspection_only: bool = False
    public_keys: tuple[pb.PublicKey, ...] = ()
    certificate_subject: str = ""
    suspended: bool = False
    delete_time: datetime | None = None
    version: int = 1
    epoch: int = 0
    secrets: list[Secret] = field(default_factory=list)
    """The newest first."""

    @property
    def granted_scopes(self) -> tuple[str, ...]:
        return self.scopes or account_fields.ROLE_SCOPES[self.role]

    @property
    def etag(self) -> str:
        return hashlib.sha256(f"{self.id}:{self.version}".encode()).hexdigest()[:16]

    def live_secrets(self, now: datetime) -> list[Secret]:
        return [secret for secret in self.secrets if secret.live(now)]

    def state(self, now: datetime) -> pb.State.ValueType:
        if self.delete_time:
            return pb.STATE_DELETED
        if self.suspended:
            return pb.STATE_SUSPENDED
        expired = self.secrets and not self.live_secrets(now) and not (self.public_keys or self.certificate_subject)
        return pb.STATE_EXPIRED if expired else pb.STATE_ACTIVE


@dataclass
class Caller:
    """Who was authenticated, and what they may do in this call."""

    account: Account
    scopes: frozenset[str]
    secret: Secret | None = None
    by_key: bool = False
    claims: dict[str, Any] = field(default_factory=dict)
    """What the token says that it bears; empty for one that bears none."""

    @property
    def by_token(self) -> bool:
        return not (self.secret or self.by_key)


class Accounts:
    """Every account by its id. `changed` is told of each change that verifiers must know."""

    def __init__(self, now: Callable[[], datetime], changed: Callable[[Account], None], issuer: str, audience: str):
        self._now = now
        self._changed = changed
        self._issuer = issuer
        self._audience = audience
        self._accounts: dict[str, Account] = {}

    def __iter__(self) -> Iterator[Account]:
        """In the order they were created; without those that are purged."""
        now = self._now()
        return (each for each in self._accounts.values() if not each.delete_time or each.delete_time + RETENTION > now)

    def find(self, id: str) -> Account | None:
        """By its id in either case, or its client_id."""
        return next((each for each in self if each.id == id.lower() or each.client_id == id), None)

    def get(self, id: str) -> Account:
        found = self.find(account_fields.account_id(id))
        if found is None:
            raise refused("NOT_FOUND")
        return found

    def allowed_audiences(self, account: Account) -> tuple[str, ...]:
        """What an account may ask for."""
        if account.audiences:
            return account.audiences
        return (self._audience, self._issuer) if account.role in ("admin", "auditor") else (self._audience,)

    def drafted(self, message: pb.ServiceAccount, *, without_secret: bool = False) -> Account:
        """A new account as a message describes it, checked, not added yet."""
        role, keys, now = (
            account_fields.role(message.role),
            registered(message.public_keys),
            self._now(),
        )
        if without_secret and not (keys or message.certificate_subject):
            raise invalid("without_secret", "needs an account with public_keys or a certificate_subject")
        return Account(
            id=str(uuid.uuid4()),
            client_id=account_fields.client_id(message.name),
            name=account_fields.name(message.name),
            description=account_fields.description(message.description),
            rate_limit=account_fields.rate_limit(message.rate_limit or DEFAULT_RATE_LIMIT),
            role=role,
            scopes=account_fields.scopes(message.scopes, role),
            audiences=account_fields.audiences(message.audiences),
            served_audiences=account_fields.audiences(message.served_audiences, "served_audiences"),
            introspection_only=message.introspection_only,
            public_keys=keys,
            certificate_subject=message.certificate_subject,
            create_time=now,
            update_time=now,
            secrets=[] if without_secret else [new_secret(now)],
        )

    def require_free(self, account: Account) -> None:
        """Refuses a name that another account has."""
        if any(each.name == account.name and each.id != account.id for each in self):
            raise refused("ALREADY_EXISTS", "An account of this name exists.", reason="NAME_TAKEN")

    def add(self, account: Account) -> None:
        self.require_free(account)
        self._accounts[account.id] = account
        self._changed(account)

    def target(self, request: Any, *, deleted: bool = False) -> Account:
        """The account that a request is for, by its `id` and `etag`; a deleted one only where that is asked for."""
        account = self.get(request.id)
        if request.etag not in ("", account.etag):
            raise refused("ETAG_MISMATCH")
        if account.delete_time and not deleted:
            raise precondition("The account is deleted; undelete it first.", "ACCOUNT_DELETED")
        if deleted and not account.delete_time:
            raise precondition("The account is not deleted.", "ACCOUNT_NOT_DELETED")
        return account

    def suspend(self, account: Account, caller: Caller | None = None) -> None:
        if account.suspended:
            raise precondition("The account is suspended already.", "ACCOUNT_SUSPENDED")
        forbid_oneself(caller, account)
        account.suspended = True
        self.save(account)

    def activate(self, account: Account, caller: Caller | None = None) -> None:
        require_scopes(caller, account)
        if not account.suspended:
            raise precondition("The account is not suspended.", "ACCOUNT_NOT_SUSPENDED")
        account.suspended = False
        self.save(account)

    def delete(self, account: Account, caller: Caller | None = None) -> None:
        forbid_oneself(caller, account)
        account.delete_time = self._now()
        self.save(account)

    def undelete(self, account: Account, caller: Caller | None = None) -> None:
        require_scopes(caller, account)
        account.delete_time = None
        self.save(account)

    def save(self, account: Account) -> None:
        """Counts a change, and tells of it."""
        account.version += 1
        account.update_time = self._now()
        self._changed(account)

    def message(self, account: Account) -> pb.ServiceAccount:
        """The account as the API shows it."""
        now, deleted = self._now(), account.delete_time
        return pb.ServiceAccount(
            id=account.id,
            client_id=account.client_id,
            name=account.name,
            description=account.description,
            role=pb.Role.Value(f"ROLE_{account.role.upper()}"),
            state=account.state(now),
            rate_limit=account.rate_limit,
            scopes=account.granted_scopes,
            audiences=self.allowed_audiences(account),
            served_audiences=account.served_audiences,
            introspection_only=account.introspection_only,
            public_keys=account.public_keys,
            certificate_subject=account.certificate_subject,
            secrets=[secret.message() for secret in account.live_secrets(now)],
            etag=account.etag,
            create_time=timestamp(account.create_time),
            update_time=timestamp(account.update_time),
            delete_time=timestamp(deleted),
            purge_time=timestamp(deleted and deleted + RETENTION),
            secret_expire_time=timestamp(max((each.expire_time for each in account.secrets), default=None)),
        )


def timestamp(value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    made = Timestamp()
    made.FromDatetime(value)
    return made


def precondition(message: str, reason: str) -> Exception:
    return refused("FAILED_PRECONDITION", message, reason=reason)


def require_scopes(caller: Caller | None, account: Account) -> None:
    """Refuses a caller that lacks a scope of the account's. The test itself (None) lacks none."""
    if caller is not None and not set(account.granted_scopes) <= caller.scopes:
        message = "The account holds a scope that this caller lacks."
        raise refused("PERMISSION_DENIED", message, reason="SCOPE_NOT_HELD")


def forbid_oneself(caller: Caller | None, account: Account) -> None:
    if caller is not None and account is caller.account:
        raise precondition(
            "An account can't suspend or delete itself, nor change what it may do or its keys.", "OWN_ACCOUNT"
        )
