"""The filter of lists: the part of AIP-160 that they need, comparisons joined by AND.

Of accounts, `role` and `state` compare by = and !=, `name` by = != and : (contains), `secret_expire_time` by < <= > >=.
Of ledger rows, `kind`, `actor` and `subject` compare by =, `sequence` and `time` by < <= > >=.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from artstore_grpc.errors import invalid
from artstore_grpc.model import Comparison, Role, State

MAX_LENGTH = 1000
MAX_TERMS = 20

TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\["\\])*")|(?P<operator><=|>=|!=|[=<>:])|(?P<word>[A-Za-z0-9_.+\-]+))""",
)
Grammar = Mapping[str, tuple[str, ...]]
"""The fields that a list compares, each with its operators."""

EQUAL = ("=",)
ORDER = ("<", "<=", ">", ">=")

ACCOUNTS: Grammar = {
    "role": ("=", "!="),
    "state": ("=", "!="),
    "name": ("=", "!=", ":"),
    "secret_expire_time": ORDER,
}
LEDGER: Grammar = {"kind": EQUAL, "actor": EQUAL, "subject": EQUAL, "sequence": ORDER, "time": ORDER}
MAX_SEQUENCE = 2**63 - 1
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


def parse(text: str, grammar: Grammar = ACCOUNTS) -> tuple[Comparison, ...]:
    """The comparisons of a filter; none for an empty one. Raises InvalidRequest."""
    if len(text) > MAX_LENGTH:
        raise invalid("filter", f"must have at most {MAX_LENGTH:,} characters")
    tokens = list(tokenised(text))
    terms = [tokens[at : at + 4] for at in range(0, len(tokens), 4)]
    if len(terms) > MAX_TERMS:
        raise invalid("filter", f"must have at most {MAX_TERMS} comparisons")
    for number, term in enumerate(terms, 1):
        joined = number < len(terms)
        if len(term) != 3 + joined or (joined and term[3] != ("word", "AND")):
            raise invalid("filter", "must be comparisons joined by AND")
    return tuple(comparison(grammar, term[0], term[1], term[2]) for term in terms)


def tokenised(text: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        match = TOKEN.match(text, at)
        if not match or not match.lastgroup:
            raise invalid("filter", f"can't be read at character {at + 1}")
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()


def comparison(
    grammar: Grammar, field: tuple[str, str], operator: tuple[str, str], value: tuple[str, str]
) -> Comparison:
    if field[0] != "word" or field[1] not in grammar:
        raise invalid("filter", f"knows only the fields {', '.join(grammar)}")
    if operator[0] != "operator" or operator[1] not in grammar[field[1]]:
        raise invalid("filter", f"compares {field[1]} only by {' '.join(grammar[field[1]])}")
    if value[0] == "operator":
        raise invalid("filter", "must be comparisons joined by AND")
    text = re.sub(r"\\(.)", r"\1", value[1][1:-1]) if value[0] == "string" else value[1]
    return Comparison(field[1], operator[1], converted(field[1], text))


def converted(field: str, text: str) -> str | datetime | int:
    if field in ("secret_expire_time", "time"):
        return moment(text, field)
    if field == "sequence":
        return number(text)
    known: set[str] = {"role": set[str](Role), "state": set[str](State)}.get(field, set())
    short = re.sub(r"^(ROLE|STATE)_", "", text).lower() if known else text
    if "\0" in short or (known and short not in known):
        raise invalid("filter", f"has an unknown {field}")
    return short


def number(text: str) -> int:
    """A sequence."""
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or int(text) > MAX_SEQUENCE:
        raise invalid("filter", "needs sequence as a whole number")
    return int(text)


def moment(text: str, field: str = "secret_expire_time") -> datetime:
    """An RFC 3339 time; it must say its offset."""
    try:
        if not RFC3339.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid("filter", f"needs {field} as an RFC 3339 time, such as 2030-01-31T00:00:00Z") from None
