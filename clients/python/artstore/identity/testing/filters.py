"""The filter of ListServiceAccounts (a part of AIP-160): comparisons joined by AND, as the service reads them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from artstore.identity.testing.account_fields import ROLE_SCOPES
from artstore.identity.testing.accounts import Account
from artstore.identity.testing.refusals import invalid
from artstore.identity.v1 import service_account_service_pb2 as pb

MAX_LENGTH = 1000
MAX_TERMS = 20
TERM = re.compile(r'\s*(?:(?P<string>"(?:[^"\\]|\\["\\])*")|(?P<sign><=|>=|!=|[=<>:])|(?P<word>[A-Za-z0-9_.+\-]+))')
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ":": lambda value, part: part in value,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
FIELDS: dict[str, tuple[str, ...]] = {
    "role": ("=", "!="),
    "state": ("=", "!="),
    "name": ("=", "!=", ":"),
    "secret_expire_time": ("<", "<=", ">", ">="),
}
STATES = tuple(pb.State.Name(value).removeprefix("STATE_").lower() for value in pb.State.values() if value)

Matches = Callable[[Account, datetime], bool]


def parsed(text: str) -> list[Matches]:
    """What an account must match, at a time."""
    if len(text) > MAX_LENGTH:
        raise invalid("filter", f"must have at most {MAX_LENGTH:,} characters")
    words = list(tokens(text))
    terms = [words[at : at + 4] for at in range(0, len(words), 4)]
    if len(terms) > MAX_TERMS:
        raise invalid("filter", f"must have at most {MAX_TERMS} comparisons")
    for number, term in enumerate(terms, 1):
        joined = number < len(terms)
        if len(term) != 3 + joined or (joined and term[3] != ("word", "AND")):
            raise invalid("filter", "must be comparisons joined by AND")
    return [comparison(*term[:3]) for term in terms]


def tokens(text: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        match = TERM.match(text, at)
        if not match or not match.lastgroup:
            raise invalid("filter", f"can't be read at character {at + 1}")
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()


def comparison(field: tuple[str, str], sign: tuple[str, str], value: tuple[str, str]) -> Matches:
    if field[0] != "word" or field[1] not in FIELDS:
        raise invalid("filter", f"knows only the fields {', '.join(FIELDS)}")
    if sign[0] != "sign" or sign[1] not in FIELDS[field[1]]:
        raise invalid("filter", f"compares {field[1]} only by {' '.join(FIELDS[field[1]])}")
    if value[0] == "sign":
        raise invalid("filter", "must be comparisons joined by AND")
    text = re.sub(r"\\(.)", r"\1", value[1][1:-1]) if value[0] == "string" else value[1]
    wanted, compare = converted(field[1], text), SIGNS[sign[1]]

    def matches(account: Account, now: datetime) -> bool:
        found = value_of(account, field[1], now)
        return found is not None and compare(found, wanted)

    return matches


def value_of(account: Account, field: str, now: datetime) -> Any:
    if field == "state":
        return STATES[account.state(now) - 1]
    if field == "secret_expire_time":
        return max((secret.expire_time for secret in account.secrets), default=None)
    return getattr(account, field)


def converted(field: str, text: str) -> str | datetime:
    if field == "secret_expire_time":
        return moment(text)
    known = {"role": tuple(ROLE_SCOPES), "state": STATES}.get(field, ())
    short = re.sub(r"^(ROLE|STATE)_", "", text).lower() if known else text
    if "\0" in short or (known and short not in known):
        raise invalid("filter", f"has an unknown {field}")
    return short


def moment(text: str) -> datetime:
    try:
        if not RFC3339.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid("filter", "needs secret_expire_time as an RFC 3339 time, such as 2030-01-31T00:00:00Z") from None
