"""What the gateway answers with, and the refusals that HTTP itself calls for (RFC 9110 §15).

A `Refusal` says what went wrong in words that both dialects can render; it is made from an IdentityError by the one
table `errors.OUTCOMES`, or is one of the constants here, where no method of the API was reached.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple

import orjson

from artstore_grpc.call import MAX_MESSAGE_BYTES
from artstore_grpc.errors import BUSY_RETRY, OUTCOMES, IdentityError, Overloaded, Violation

Headers = tuple[tuple[bytes, bytes], ...]

JSON: Headers = ((b"content-type", b"application/json"),)
NO_STORE: Headers = ((b"cache-control", b"no-store"),)
CLOSE: Headers = ((b"connection", b"close"),)

TRY_LATER = frozenset({429, 503})
"""Statuses that always say when to come back (RFC 6585 §4, RFC 9110 §15.6.4)."""


class Answer(NamedTuple):
    """A whole response; `content-length` and the request id are added when it is sent."""

    status: int
    headers: Headers
    body: bytes
    place: AbstractContextManager[object] = nullcontext()
    """What is held until it was sent, or nobody is there any more."""


def encoded(document: object) -> bytes:
    """JSON as it goes out: compact, in UTF-8."""
    return orjson.dumps(document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error on its way out: `code` is gRPC's name of it, `oauth` RFC 6749 §5.2's."""

    status: int
    code: str
    oauth: str
    reason: str
    message: str
    violations: tuple[Violation, ...] = ()
    retry_after: timedelta | None = None
    denial_id: str = ""
    error: type[IdentityError] | None = None
    """The class it was made from, for the challenge of a 401; None for HTTP's own."""
    headers: Headers = ()


class Refused(Exception):
    """A request that HTTP itself refuses."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.reason)


def refusal_of(error: IdentityError) -> Refusal:
    """The refusal that an error of the API becomes; its `cause` stays here."""
    outcome = OUTCOMES[type(error)]
    return Refusal(
        status=outcome.http,
        code=outcome.grpc,
        oauth=outcome.oauth,
        reason=error.reason,
        message=error.message,
        violations=error.violations,
        retry_after=error.retry_after,
        denial_id=error.denial_id,
        error=type(error),
    )


def retry_after(refusal: Refusal) -> Headers:
    """`Retry-After` in whole seconds, rounded up, at least 1 (RFC 9110 §10.2.3)."""
    if refusal.retry_after is None and refusal.status not in TRY_LATER:
        return ()
    seconds = (refusal.retry_after or timedelta()) / timedelta(seconds=1)
    return ((b"retry-after", str(max(1, -int(-seconds // 1))).encode()),)


def not_allowed(methods: str) -> Refusal:
    """405 with the methods that are allowed (RFC 9110 §15.5.6)."""
    return replace(METHOD_NOT_ALLOWED, headers=((b"allow", methods.encode()),))


def _http(status: int, code: str, reason: str, message: str, **more: Any) -> Refusal:
    return Refusal(status=status, code=code, oauth="invalid_request", reason=reason, message=message, **more)


MALFORMED_HTTP = _http(
    400, "INVALID_ARGUMENT", "MALFORMED_HTTP", "The request is not well-formed HTTP/1.1.", headers=CLOSE
)
MALFORMED_PATH = _http(
    400, "INVALID_ARGUMENT", "MALFORMED_PATH", "The path holds a broken escape, bad UTF-8 or a control character."
)
NO_SUCH_ROUTE = _http(404, "NOT_FOUND", "NO_SUCH_ROUTE", "There is nothing at this path.")
METHOD_NOT_ALLOWED = _http(405, "UNIMPLEMENTED", "METHOD_NOT_ALLOWED", "This path does not take this method.")
TOO_MANY_CONNECTIONS = replace(
    refusal_of(Overloaded(reason="TOO_MANY_CONNECTIONS", retry_after=BUSY_RETRY)), headers=CLOSE
)
BODY_TIMEOUT = _http(408, "DEADLINE_EXCEEDED", "BODY_TIMEOUT", "The request did not arrive in time.", headers=CLOSE)
BODY_TOO_LARGE = _http(
    413, "INVALID_ARGUMENT", "BODY_TOO_LARGE", f"The body exceeds {MAX_MESSAGE_BYTES:,} bytes.", headers=CLOSE
)
UNSUPPORTED_MEDIA_TYPE = _http(
    415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json in UTF-8, not compressed."
)
HEADERS_TOO_LARGE = _http(
    431, "INVALID_ARGUMENT", "HEADERS_TOO_LARGE", "The header fields are too large.", headers=CLOSE
)
