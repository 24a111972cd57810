"""What each field of an account, and of a request about one, may hold: the service's own bounds."""

from __future__ import annotations

import re
import unicodedata
import uuid
from collections.abc import Iterable
from datetime import timedelta

from artstore.identity.testing.refusals import invalid
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration

SCOPES = (
    "storage.read",
    "storage.write",
    "identity.accounts.read",
    "identity.accounts.write",
    "identity.keys.write",
    "identity.audit.read",
)
"""Every scope there is, in the order they have in tokens."""
ROLE_SCOPES: dict[str, tuple[str, ...]] = {
    "admin": SCOPES,
    "user": ("storage.read", "storage.write"),
    "auditor": ("identity.accounts.read", "identity.audit.read"),
    "readonly": ("storage.read",),
}
MAX_RATE_LIMIT = 1_000_000
MAX_AUDIENCES = 20
AUDIENCE = re.compile(r"[\x21-\x7e]{1,255}")
MAX_OVERLAP = timedelta(days=30)


def name(value: str) -> str:
    if not 3 <= len(value) <= 200:
        raise invalid("name", "must have 3 to 200 characters")
    if value != value.strip() or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value):
        raise invalid("name", "must have no control characters and no spaces at its ends")
    return value


def description(value: str) -> str:
    if len(value) > 500:
        raise invalid("description", "must have at most 500 characters")
    if "\0" in value:
        raise invalid("description", "must not hold NUL")
    return value


def rate_limit(value: int) -> int:
    if not 1 <= value <= MAX_RATE_LIMIT:
        raise invalid("rate_limit", f"must be 1 to {MAX_RATE_LIMIT:,}")
    return value


def role(value: int) -> str:
    """The short name of a role from the wire."""
    if value == pb.ROLE_UNSPECIFIED:
        raise invalid("role", "is missing")
    if value not in pb.Role.values():
        raise invalid("role", "is unknown")
    return pb.Role.Name(value).removeprefix("ROLE_").lower()  # type: ignore[arg-type]


def scopes(values: Iterable[str], role_name: str) -> tuple[str, ...]:
    """A subset of the role's scopes, in their order; empty stays empty: all of the role's."""
    asked = set(values)
    if not asked <= set(ROLE_SCOPES[role_name]):
        raise invalid("scopes", "must be scopes that the role has")
    return tuple(scope for scope in SCOPES if scope in asked)


def audiences(values: Iterable[str], field: str = "audiences") -> tuple[str, ...]:
    given = tuple(values)
    if len(given) > MAX_AUDIENCES:
        raise invalid(field, f"must be at most {MAX_AUDIENCES}")
    if not all(AUDIENCE.fullmatch(value) for value in given):
        raise invalid(field, "must be 1 to 255 visible ASCII characters each")
    return tuple(dict.fromkeys(given))


def overlap(value: Duration) -> timedelta:
    try:
        given = value.ToTimedelta()
    except (OverflowError, ValueError):
        given = timedelta(-1)
    if not timedelta(0) <= given <= MAX_OVERLAP:
        raise invalid("overlap", f"must be 0 to {MAX_OVERLAP.days} days")
    return given


def request_id(value: str) -> str:
    """A version 4 UUID (AIP-155), in lower case."""
    try:
        parsed = uuid.UUID(value)
    except ValueError:
        parsed = None
    if parsed is None or parsed.version != 4 or str(parsed) != value.lower():
        raise invalid("request_id", "must be a random UUID (version 4)")
    return str(parsed)


def account_id(value: str) -> str:
    """Whatever may name an account: its id, or its client_id."""
    if not value:
        raise invalid("id", "is missing")
    if len(value) > 100 or not value.isascii() or not value.isprintable():
        raise invalid("id", "must be an account's id or client_id")
    return value


def client_id(account_name: str) -> str:
    """A fresh `sa_dev_<name, cleaned, at most 20>_<8 hex>`."""
    plain = unicodedata.normalize("NFKD", account_name).encode("ascii", "ignore").decode().lower()
    cleaned = re.sub(r"[^a-z0-9]+", "-", plain)[:20].strip("-") or "account"
    return f"sa_dev_{cleaned}_{uuid.uuid4().hex[:8]}"
