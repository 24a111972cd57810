"""Request bodies read strictly: forms (RFC 6749 Appendix B) and JSON (RFC 8259), both in UTF-8.

Strict because what one lenient reader repairs another repairs differently: a parameter sent twice, a broken escape or
a NUL is refused, never guessed at. Bodies are bounded before they come here.
"""

from __future__ import annotations

import json
import re
from typing import Any

from artstore_grpc.errors import InvalidRequest, Violation, invalid
from artstore_grpc.forms import unescaped

FORM = "application/x-www-form-urlencoded"
JSON = "application/json"

MAX_PARAMETERS = 100
"""More than any request has use for: 20 audiences, as `audience` or `resource`, and nine others."""


Pairs = list[tuple[str, str]]


def media_type(header: str) -> str:
    """The media type of a `Content-Type` in lower case (RFC 9110 §8.3.1); empty where its charset is not UTF-8."""
    kind, *parameters = header.split(";")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            return ""
    return kind.strip().lower()


def form(data: bytes) -> Pairs:
    """The parameters of a form or a query in the order they came. Raises InvalidRequest."""
    if not data:
        return []
    parts = data.split(b"&")
    if len(parts) > MAX_PARAMETERS:
        raise InvalidRequest(f"More than {MAX_PARAMETERS} parameters were sent.", reason="TOO_MANY_PARAMETERS")
    return [pair(part) for part in parts if part]


def pair(part: bytes) -> tuple[str, str]:
    name, _, value = part.partition(b"=")
    if not name:
        raise InvalidRequest("A parameter has no name.", reason="MALFORMED_FORM")
    return decoded(name), decoded(value)


def decoded(raw: bytes) -> str:
    """Plus is a space, then percent escapes, then UTF-8 (RFC 6749 Appendix B)."""
    try:
        return text(unescaped(raw))
    except ValueError:
        raise InvalidRequest("A percent escape is broken.", reason="MALFORMED_FORM") from None


def text(raw: bytes) -> str:
    try:
        decoded = raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The request is not valid UTF-8.", reason="MALFORMED_UTF8") from None
    return without_nul(decoded)


def without_nul(value: str) -> str:
    if "\0" in value:
        raise InvalidRequest("The request contains a NUL.", reason="MALFORMED_TEXT")
    return value


def once(pairs: Pairs, repeatable: frozenset[str]) -> dict[str, list[str]]:
    """Values by name, empty ones left out (RFC 6749 §3.1). A name that may not repeat and does raises InvalidRequest,
    also where one of its values is empty or nobody knows the name (§3.2)."""
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen and name not in repeatable:
            raise InvalidRequest("A parameter was sent twice.", reason="REPEATED_PARAMETER", violations=named(name))
        seen.add(name)
        if value:
            found.setdefault(name, []).append(value)
    return found


def named(name: str) -> tuple[Violation, ...]:
    """A violation for a parameter sent twice, if its name is one that may be said back."""
    return (Violation(name, "was sent twice"),) if re.fullmatch(r"[a-z_.]{1,60}", name) else ()


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object without repeated names, lone surrogates or numbers that are none. Raises InvalidRequest."""
    source = text(data)
    try:
        document = json.loads(source, object_pairs_hook=unrepeated, parse_constant=no_constant)
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not valid JSON.", reason="MALFORMED_JSON") from None
    if not isinstance(document, dict):
        raise InvalidRequest("The body must be a JSON object.", reason="MALFORMED_JSON")
    return document


def unrepeated(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise InvalidRequest("A member of a JSON object was sent twice.", reason="REPEATED_PARAMETER")
    return found


def no_constant(name: str) -> float:
    """NaN and infinities are Python's own extension of JSON (RFC 8259 §6 has neither)."""
    raise ValueError(name)


def json_text(value: object, field: str) -> str:
    """A string member. Raises InvalidRequest for another type, a NUL or a lone surrogate, which no UTF-8 can carry."""
    if not isinstance(value, str):
        raise invalid(field, "must be a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid(field, "contains a lone surrogate") from None
    return without_nul(value)
