"""What the ledger is made of: events, the rows that record them, and the checkpoints that sign its heads. No I/O.

Objects are frozen, times aware UTC.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from artstore_grpc.model import INSTALLATION


@dataclass(frozen=True, slots=True)
class LedgerKey:
    """A key pair that signs checkpoints (Ed25519): the public JWK, and the private key sealed as signing keys are."""

    kid: str
    public_jwk: dict[str, str]
    sealed: bytes
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A signed head of the ledger: `number` counts from 1, `signature` is a compact JWS over the rest."""

    number: int
    sequence: int
    hash: bytes
    time: datetime
    kid: str
    signature: str


class EventKind(StrEnum):
    """What a ledger row says happened, as docs/ledger.md lists it. `subject` is an account id, a key id, or
    (TOKEN_REVOKED) a `jti`."""

    ACCOUNT_CREATED = "account.created"
    ACCOUNT_UPDATED = "account.updated"
    ACCOUNT_SUSPENDED = "account.suspended"
    ACCOUNT_ACTIVATED = "account.activated"
    ACCOUNT_DELETED = "account.deleted"
    ACCOUNT_UNDELETED = "account.undeleted"
    ACCOUNT_PURGED = "account.purged"
    SECRET_ROTATED = "secret.rotated"
    SECRET_REVOKED = "secret.revoked"
    SECRET_DELIVERED = "secret.delivered"
    SECRET_DELIVERY_ABANDONED = "secret.delivery_abandoned"
    SECRET_RETIRED = "secret.retired"
    SECRET_EXPIRING = "secret.expiring"
    ACCOUNT_EXPIRED = "account.expired"
    TOKEN_REVOKED = "token.revoked"
    TOKENS_VOIDED = "tokens.voided"
    KEY_CREATED = "key.created"
    KEY_SCHEDULED = "key.scheduled"
    KEY_ACTIVATED = "key.activated"
    KEY_RETIRED = "key.retired"
    KEY_REVOKED = "key.revoked"
    KEY_PURGED = "key.purged"
    ROOT_KEY_REWRAPPED = "root_key.rewrapped"
    LEDGER_KEY_CREATED = "ledger_key.created"
    CHECKPOINT_SIGNED = "checkpoint.signed"
    LEDGER_ARCHIVED = "ledger.archived"
    AUTHENTICATION_DENIED = "authentication.denied"
    AUTHENTICATION_DENIALS_OMITTED = "authentication.denials_omitted"


REPORTS = frozenset({EventKind.AUTHENTICATION_DENIED, EventKind.AUTHENTICATION_DENIALS_OMITTED})
"""Kinds that tell what somebody tried: nothing has changed, whatever their subject."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something, and from where: a client_id, its address, the id that its call has in the log, and the trace
    that this belongs to, if any. What the installation does by itself has no source and no call."""

    name: str
    source: str = ""
    request_id: str = ""
    trace_id: str = ""

    @property
    def origin(self) -> dict[str, str]:
        """As a row's detail has it."""
        if not (self.source or self.request_id):
            return {}
        traced = {"trace_id": self.trace_id} if self.trace_id else {}
        return {"source": self.source, "request_id": self.request_id, **traced}


SYSTEM = Actor(INSTALLATION)
"""The installation itself."""


@dataclass(frozen=True, slots=True)
class Event:
    """A change to be recorded; `detail` is JSON-able and holds no secret. The row's has the actor's origin too."""

    time: datetime
    actor: Actor
    kind: EventKind
    subject: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A recorded change: `detail` is the canonical JSON text that was hashed, hashes are SHA-256 (32 bytes)."""

    sequence: int
    time: datetime
    actor: str
    kind: str
    subject: str
    detail: str
    previous_hash: bytes
    hash: bytes

    def parsed(self) -> dict[str, Any]:
        """The detail, from its text."""
        parsed: dict[str, Any] = json.loads(self.detail)
        return parsed
