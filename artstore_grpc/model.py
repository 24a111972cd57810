"""What the business talks about: accounts, secrets, keys (the ledger: records.py). No I/O, no protobuf, no SQL.

Times are aware UTC, lifetimes are `timedelta`. Objects are frozen: a change is a new object (`dataclasses.replace`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """A preset of scopes; an account may be narrower than its role."""

    ADMIN = "admin"
    USER = "user"
    AUDITOR = "auditor"
    READONLY = "readonly"


class State(StrEnum):
    """Where an account is in its life (AIP-216)."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    DELETED = "deleted"


class Environment(StrEnum):
    """The installation's kind; part of every `client_id`."""

    PROD = "prod"
    STAGING = "staging"
    DEV = "dev"


STORAGE_READ = "storage.read"
STORAGE_WRITE = "storage.write"
ACCOUNTS_READ = "identity.accounts.read"
ACCOUNTS_WRITE = "identity.accounts.write"
KEYS_WRITE = "identity.keys.write"
AUDIT_READ = "identity.audit.read"

SCOPES = (STORAGE_READ, STORAGE_WRITE, ACCOUNTS_READ, ACCOUNTS_WRITE, KEYS_WRITE, AUDIT_READ)
"""Every scope there is, in the order they are listed in tokens."""

ROLE_SCOPES: dict[Role, tuple[str, ...]] = {
    Role.ADMIN: SCOPES,
    Role.USER: (STORAGE_READ, STORAGE_WRITE),
    Role.AUDITOR: (ACCOUNTS_READ, AUDIT_READ),
    Role.READONLY: (STORAGE_READ,),
}

UNAUTHENTICATED = "unauthenticated"
"""Who the ledger says was denied: whoever it was has proved nothing; no account's client_id."""
INSTALLATION = "system"
"""Who the ledger says did it where the installation itself did; no account's client_id."""

DEFAULT_RATE_LIMIT = 100
MAX_RATE_LIMIT = 1_000_000
MAX_LIVE_SECRETS = 2
SECRET_LIFETIME = timedelta(days=90)
SECRET_WARNING = timedelta(days=7)
DEFAULT_OVERLAP = timedelta(hours=24)
MAX_OVERLAP = timedelta(days=30)
DELETED_RETENTION = timedelta(days=30)
MAX_HASH_COST = 16
"""log2 of the rounds of an imported bcrypt hash; one that is checked takes some 4 s at this."""


class RotationMode(StrEnum):
    """Who sees to it that an account's secret changes."""

    MANUAL = "manual"
    SELF = "self"
    MANAGED = "managed"


@dataclass(frozen=True, slots=True)
class RotationPolicy:
    """How an account's secret is rotated.

    `schedule` is a cron expression in UTC, empty where there is none. `overlap` is how long the old secret lives on.
    `sink` names a sink of the settings, `destination` a place there; empty: after the `client_id`.
    """

    mode: RotationMode = RotationMode.MANUAL
    schedule: str = ""
    overlap: timedelta = DEFAULT_OVERLAP
    sink: str = ""
    destination: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON has it, for whatever keeps it; empty for the default, which most accounts have."""
        if self == BY_HAND:
            return {}
        values = {name: getattr(self, name) for name in RotationPolicy.__slots__}
        return values | {"overlap": self.overlap.total_seconds()}

    @classmethod
    def restored(cls, values: Mapping[str, Any] | None) -> RotationPolicy:
        """From `plain`; the default where nothing was kept."""
        if not values:
            return BY_HAND
        overlap = timedelta(seconds=values["overlap"])
        return cls(**{**values, "mode": RotationMode(values["mode"]), "overlap": overlap})


BY_HAND = RotationPolicy()
"""Of an account that nobody gave another."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret at rest: everything but the secret.

    `hash` is bcrypt's; `tag` (32 bytes) is the keyed digest that the secret's first success earned, None before. An
    `imported` secret came as a hash: its text is of any form, may be weak, and has its tag in memory only.
    """

    id: str
    hash: str
    create_time: datetime
    expire_time: datetime
    tag: bytes | None = None
    last_used_time: datetime | None = None
    last_used_source: str = ""
    imported: bool = False
    replace_time: datetime | None = None
    """When its successor reached who uses it: since then it is on its way out. None for one that has none."""
    warned: bool = False
    """Whether the ledger says that it is about to expire."""
    uses: tuple[SecretUse, ...] = ()
    """Where it was used from lately, the latest first; read only where an account is shown."""

    def live(self, now: datetime) -> bool:
        return now < self.expire_time


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """A new secret that waits to reach its account's sink: `sealed` (vault.py) holds its text, and nothing else does.

    After `give_up_time` nothing works any more that its users have, and a fresh one is made.
    """

    secret_id: str
    sealed: bytes = field(repr=False)
    create_time: datetime
    give_up_time: datetime
    next_attempt_time: datetime
    attempts: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that an account authenticates with: a checked public JWK, without `kid`, and the `kid` its owner gave it.

    `thumbprint` is RFC 7638's; `algorithm` the one JWS algorithm that its assertions may have.
    """

    thumbprint: str
    kid: str
    algorithm: str
    jwk: dict[str, str]


@dataclass(frozen=True, slots=True)
class Account:
    """An identity of a service.

    `suspended` and `delete_time` are what verbs set; `state` follows from them and from the secrets. Empty `scopes`
    and `audiences` mean the defaults of the role. `version` counts changes, `epoch` voids older tokens when raised.
    """

    id: str
    client_id: str
    name: str
    role: Role
    create_time: datetime
    update_time: datetime
    description: str = ""
    rate_limit: int = DEFAULT_RATE_LIMIT
    scopes: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    served_audiences: tuple[str, ...] = ()
    introspection_only: bool = False
    is_system: bool = False
    suspended: bool = False
    delete_time: datetime | None = None
    version: int = 1
    epoch: int = 0
    epoch_time: datetime | None = None
    """When `epoch` was last raised; None if never."""
    public_keys: tuple[PublicKey, ...] = ()
    """Keys whose assertions authenticate it (RFC 7523 §2.2)."""
    certificate_subject: str = ""
    """Whose certificates authenticate it (RFC 8705 §2.1.2), as subjects.py has it; empty: none do."""
    rotation_policy: RotationPolicy = BY_HAND
    next_rotate_time: datetime | None = None
    """When the policy has its secret rotated next; None where it doesn't."""
    told_expire_time: datetime | None = None
    """The `secret_expire_time` whose passing is in the ledger."""
    delivery: PendingDelivery | None = None
    """Read only by units, and where an account is shown or what is due to it is asked."""
    secrets: tuple[Secret, ...] = ()
    """Those that no verb has ended, the newest first; some may have expired."""

    @property
    def purge_time(self) -> datetime | None:
        return self.delete_time and self.delete_time + DELETED_RETENTION

    @property
    def secret_expire_time(self) -> datetime | None:
        """When the last of its secrets expires; None when it has none."""
        return max((secret.expire_time for secret in self.secrets), default=None)

    @property
    def lasting(self) -> bool:
        """Whether it authenticates by something that doesn't expire."""
        return bool(self.public_keys or self.certificate_subject)

    @property
    def granted_scopes(self) -> tuple[str, ...]:
        return self.scopes or ROLE_SCOPES[self.role]

    def state(self, now: datetime) -> State:
        if self.delete_time:
            return State.DELETED
        if self.suspended:
            return State.SUSPENDED
        for secret in self.secrets:
            if now < secret.expire_time:
                return State.ACTIVE
        return State.EXPIRED if self.secrets and not self.lasting else State.ACTIVE

    def live_secrets(self, now: datetime) -> tuple[Secret, ...]:
        return tuple(secret for secret in self.secrets if secret.live(now))


class KeyState(StrEnum):
    """A signing key's life: prepared (published), active (signs), retired (published), revoked (not published). One
    that is gone has no row."""

    PREPARED = "prepared"
    ACTIVE = "active"
    RETIRED = "retired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair as stored: the public JWK, and the private key sealed under the key-encryption key."""

    kid: str
    algorithm: str
    public_jwk: dict[str, str]
    sealed: bytes
    state: KeyState
    create_time: datetime
    activate_time: datetime | None = None
    """When it began to sign; of a prepared key when it is to, None where that isn't decided."""
    retire_time: datetime | None = None
    """When it was retired or revoked."""
    token_lifetime_seconds: int = 0
    """The longest life of a token that any replica may have signed with it."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """The installation's root key, encrypted under the key-encryption key that `kek_id` names."""

    name: str
    wrapped: bytes
    kek_id: str
    create_time: datetime


DELIVERY = "delivery"
"""The kind of what isn't a key: a secret's text, under the secret's id."""


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A private key, or the text of a secret that waits to be delivered, as sealed under the root key, of whichever
    table: `kind` and `kid` are the context."""

    kind: str
    kid: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Revocation:
    """A revoked token, kept until it would have expired."""

    jti: str
    account_id: str
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class AccountTrust:
    """Whether an account's tokens are refused: all of them, or those with a lower epoch."""

    id: str
    suspended: bool = False
    deleted: bool = False
    epoch: int = 0
    epoch_time: datetime | None = None

    @property
    def refused(self) -> bool:
        return self.suspended or self.deleted


@dataclass(frozen=True, slots=True)
class Replay:
    """The answer to a request that carried a `request_id`; `key` and `digest` are HMACs, `sealed` None once void."""

    key: bytes
    digest: bytes
    account_id: str
    create_time: datetime
    sealed: bytes | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A right to do one job, held until `expire_time`; `fence` grows with every new holder."""

    name: str
    holder: str
    fence: int
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """One term of a filter: `field` as the list's grammar knows it (filters.py); `operator` one of = != : < <= > >=."""

    field: str
    operator: str
    value: str | datetime | int


@dataclass(frozen=True, slots=True)
class AccountQuery:
    """A page of accounts in the order of (create_time, id): `after` is the last of the page before."""

    limit: int
    comparisons: tuple[Comparison, ...] = ()
    show_deleted: bool = False
    after: tuple[datetime, str] | None = None


@dataclass(frozen=True, slots=True)
class LedgerQuery:
    """A page of ledger rows in the order of their sequence: those after `after`, or, `newest_first`, before it."""

    limit: int
    comparisons: tuple[Comparison, ...] = ()
    after: int | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class SecretUse:
    """That a secret was used, and from where: flushed to the store in batches, never per token."""

    secret_id: str
    time: datetime
    source: str


@dataclass(frozen=True, slots=True)
class Look:
    """When to look again at an account at which there was nothing to do, when it was `version` and due at `seen`."""

    account_id: str
    version: int
    seen: datetime
    due_time: datetime | None
