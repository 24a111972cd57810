"""Checkpoints: heads of the ledger, signed by a long-lived key of its own; how one is signed, and how it is checked.

A checkpoint is a compact JWS (RFC 7515) over its number, the row it vouches for (sequence and hash), its time and the
digest of the checkpoint before: the checkpoints are a chain too. The record of an archive is signed by the same key
under another `typ`, since it explains why rows are gone. Only Ed25519 keys sign (RFC 9864 §2.2), a `kid` is a key's RFC
7638 thumbprint, and any `crit` is refused. No I/O.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from artstore_grpc.ledger import Head, microseconds
from artstore_grpc.records import Checkpoint

ALGORITHM = "Ed25519"
"""RFC 9864 §2.2, which deprecates the polymorphic name `EdDSA` for it."""
CURVE: Literal["Ed25519"] = "Ed25519"
CHECKPOINT_TYPE = "ledger-checkpoint+jwt"
ARCHIVE_TYPE = "ledger-archive+jwt"
MAX_LENGTH = 4096
"""A checkpoint's JWS has about 500 characters."""

Keys = Mapping[str, OKPKey]
"""The ledger keys that are trusted, by `kid`."""


class NotSigned(Exception):
    """A JWS that none of the trusted keys has made for this purpose; the message goes on after "is"."""


class CheckpointBroken(Exception):
    """A checkpoint is wrong or missing: `number` is its, `sequence` that of the row it is about where that is known."""

    def __init__(self, number: int, problem: str, sequence: int = 0) -> None:
        self.number = number
        self.sequence = sequence
        self.problem = problem
        super().__init__(f"Checkpoint {number} {problem}.")


@dataclass(frozen=True, slots=True)
class Archive:
    """That the rows up to `sequence`, whose hash is `hash`, were moved to a file with this SHA-256 (hex)."""

    checkpoint: int
    sequence: int
    hash: bytes
    file: str


def generate() -> OKPKey:
    """A new ledger key."""
    return OKPKey.generate_key(CURVE, {"alg": ALGORITHM, "use": "sig"}, auto_kid=True)


def public_key(jwk: Mapping[str, Any]) -> OKPKey:
    """A ledger key from its public JWK. Raises NotSigned unless it is an Ed25519 key whose `kid` is its thumbprint."""
    try:
        key = OKPKey.import_key({name: str(value) for name, value in jwk.items()})
        named = key.thumbprint() == jwk["kid"]
    except (JoseError, ValueError, KeyError, TypeError):
        raise NotSigned("no Ed25519 key") from None
    if (jwk.get("kty"), jwk.get("crv")) != ("OKP", CURVE) or not named:
        raise NotSigned("no Ed25519 key under its own thumbprint")
    return key


def made(key: OKPKey, number: int, head: Head, time: datetime, before: Checkpoint | None) -> Checkpoint:
    """The checkpoint that vouches for a head, signed."""
    claims = _claims(number, head, time, digest(before))
    return Checkpoint(number, head[0], head[1], time, str(key.kid), signed(key, CHECKPOINT_TYPE, claims))


def check(checkpoint: Checkpoint, before: Checkpoint | None, keys: Keys) -> None:
    """Raises CheckpointBroken unless it says what was signed by a trusted key, and follows the one before."""
    try:
        claims = opened(checkpoint.signature, CHECKPOINT_TYPE, keys)
        kid = jws.extract_compact(str(checkpoint.signature).encode()).headers()["kid"]
    except NotSigned as error:
        raise CheckpointBroken(checkpoint.number, f"is {error}") from None
    previous = claims.get("previous")
    if claims != _own(checkpoint, previous) or checkpoint.kid != kid:
        raise CheckpointBroken(checkpoint.number, "was altered: it is not what was signed")
    expected = before.number + 1 if before else 1
    if checkpoint.number > expected:
        raise CheckpointBroken(expected, f"is missing: checkpoint {checkpoint.number} is in its place")
    if checkpoint.number < expected or previous != digest(before):
        raise CheckpointBroken(checkpoint.number, "does not follow from the checkpoint before it")


def digest(checkpoint: Checkpoint | None) -> str:
    """What the next checkpoint, and the ledger, say of this one: SHA-256 of its JWS in base64url; empty for none."""
    return encoded(hashlib.sha256(str(checkpoint.signature).encode()).digest()) if checkpoint else ""


def archive_record(key: OKPKey, archive: Archive) -> str:
    """The signed record of an archive."""
    claims = {
        "checkpoint": archive.checkpoint,
        "sequence": archive.sequence,
        "hash": encoded(archive.hash),
        "file": archive.file,
    }
    return signed(key, ARCHIVE_TYPE, claims)


def archive_of(record: str, keys: Keys) -> Archive:
    """An archive from its signed record. Raises NotSigned."""
    claims = opened(record, ARCHIVE_TYPE, keys)
    try:
        return Archive(
            int(claims["checkpoint"]), int(claims["sequence"]), decoded(str(claims["hash"])), str(claims["file"])
        )
    except (KeyError, ValueError, TypeError, OverflowError):
        raise NotSigned("no record of an archive") from None


def signed(key: OKPKey, typ: str, claims: Mapping[str, Any]) -> str:
    """A compact JWS of claims (RFC 7515 §7.1)."""
    header = {"typ": typ, "alg": ALGORITHM, "kid": str(key.kid)}
    payload = json.dumps(claims, separators=(",", ":")).encode()
    return jws.serialize_compact(header, payload, key, algorithms=[ALGORITHM])


def opened(token: str, typ: str, keys: Keys) -> dict[str, Any]:
    """The claims of a JWS of this type by a trusted key. Raises NotSigned."""
    try:
        raw = str(token).encode("ascii")
        header = jws.extract_compact(raw).headers() if len(raw) <= MAX_LENGTH else {}
        if header.get("typ") != typ or header.get("alg") != ALGORITHM or "crit" in header:
            raise NotSigned("no signature of this kind")
        key = keys.get(str(header.get("kid")))
        if key is None:
            raise NotSigned("signed by a key that is not the ledger's")
        claims = json.loads(jws.deserialize_compact(raw, key, algorithms=[ALGORITHM]).payload)
    except (JoseError, ValueError, TypeError, RecursionError):
        raise NotSigned("not validly signed") from None
    if not isinstance(claims, dict):
        raise NotSigned("no signature of this kind")
    return claims


def encoded(value: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _own(checkpoint: Checkpoint, previous: Any) -> dict[str, Any] | None:
    """What a checkpoint should have signed; None for one that was given values of other types, as SQLite allows."""
    try:
        return _claims(checkpoint.number, (checkpoint.sequence, checkpoint.hash), checkpoint.time, previous)
    except (TypeError, ValueError, AttributeError):
        return None


def _claims(number: int, head: Head, time: datetime, previous: str) -> dict[str, Any]:
    return {
        "number": number,
        "sequence": head[0],
        "hash": encoded(head[1]),
        "time": microseconds(time),
        "previous": previous,
    }
