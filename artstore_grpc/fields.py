"""What each field of an account may hold. Every refusal names the field and the bound, never the value."""

from __future__ import annotations

import re
import unicodedata
import uuid
from datetime import datetime, timedelta

from artstore_grpc.audiences import FORM, MAX_AUDIENCES
from artstore_grpc.credentials import CLIENT_ID
from artstore_grpc.errors import invalid
from artstore_grpc.model import (
    INSTALLATION,
    MAX_OVERLAP,
    MAX_RATE_LIMIT,
    ROLE_SCOPES,
    SCOPES,
    SECRET_LIFETIME,
    UNAUTHENTICATED,
    Environment,
    Role,
)
from artstore_grpc.secrets import hash_cost

NAME_LENGTH = (3, 200)
DESCRIPTION_LENGTH = 500
CLIENT_ID_NAME_LENGTH = 20
CLIENT_ID_RANDOM_LENGTH = 8
UUID_FORM = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
"""RFC 9562 §4; read in either case."""
RESERVED = (INSTALLATION, UNAUTHENTICATED)
"""What the ledger calls those who are no accounts."""


def name(value: str) -> str:
    low, high = NAME_LENGTH
    if not low <= len(value) <= high:
        raise invalid("name", f"must have {low} to {high} characters")
    if value != value.strip() or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value):
        raise invalid("name", "must have no control characters and no spaces at its ends")
    return value


def description(value: str) -> str:
    if len(value) > DESCRIPTION_LENGTH:
        raise invalid("description", f"must have at most {DESCRIPTION_LENGTH} characters")
    if "\0" in value:
        raise invalid("description", "must not hold NUL")
    return value


def rate_limit(value: int) -> int:
    if not 1 <= value <= MAX_RATE_LIMIT:
        raise invalid("rate_limit", f"must be 1 to {MAX_RATE_LIMIT:,}")
    return value


def scopes(values: tuple[str, ...], role: Role) -> tuple[str, ...]:
    """A subset of the role's scopes, in their fixed order; empty stays empty: all of the role's."""
    if not set(values) <= set(ROLE_SCOPES[role]):
        raise invalid("scopes", "must be scopes that the role has")
    return tuple(scope for scope in SCOPES if scope in values)


def audiences(values: tuple[str, ...], field: str = "audiences") -> tuple[str, ...]:
    if len(values) > MAX_AUDIENCES:
        raise invalid(field, f"must be at most {MAX_AUDIENCES}")
    if not all(FORM.fullmatch(value) for value in values):
        raise invalid(field, "must be 1 to 255 visible ASCII characters each")
    return tuple(dict.fromkeys(values))


def overlap(value: timedelta, field: str = "overlap") -> timedelta:
    if not timedelta(0) <= value <= MAX_OVERLAP:
        raise invalid(field, f"must be 0 to {MAX_OVERLAP.days} days")
    return value


def request_id(value: str) -> str:
    """A version 4 UUID (AIP-155), in lower case."""
    try:
        parsed = uuid.UUID(value)
    except ValueError:
        parsed = None
    if parsed is None or parsed.version != 4 or str(parsed) != value.lower():
        raise invalid("request_id", "must be a random UUID (version 4)")
    return str(parsed)


def imported_client_id(value: str) -> str:
    """A client_id that another system gave out, and that the ledger calls nobody else by."""
    if not CLIENT_ID.fullmatch(value):
        raise invalid("client_id", "must be 1 to 100 visible ASCII characters")
    if value in RESERVED:
        raise invalid("client_id", f"must not be one of {', '.join(RESERVED)}, which the ledger has for others")
    return value


def imported_hash(value: str) -> str:
    if hash_cost(value) is None:
        raise invalid("secret_hash", "must be a bcrypt hash: $2a$, $2b$ or $2y$, cost 04 to 16, 60 characters")
    return value


def imported_expire_time(value: datetime, now: datetime) -> datetime:
    """When an imported secret expires: no later than one that is made now does."""
    if not now < value <= now + SECRET_LIFETIME:
        raise invalid("secret_expire_time", f"must be to come, and at most {SECRET_LIFETIME.days} days ahead")
    return value


def account_id(value: str) -> str:
    """Whatever may name an account: its id or its client_id."""
    if not value:
        raise invalid("id", "is missing")
    if len(value) > 100 or not value.isascii() or not value.isprintable():
        raise invalid("id", "must be an account's id or client_id")
    return value


def client_id(environment: Environment, account_name: str) -> str:
    """A fresh `sa_<environment>_<name, cleaned, at most 20>_<8 hex>`."""
    plain = unicodedata.normalize("NFKD", account_name).encode("ascii", "ignore").decode().lower()
    cleaned = re.sub(r"[^a-z0-9]+", "-", plain)[:CLIENT_ID_NAME_LENGTH].strip("-") or "account"
    return f"sa_{environment.value}_{cleaned}_{uuid.uuid4().hex[:CLIENT_ID_RANDOM_LENGTH]}"
