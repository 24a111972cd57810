"""What a call can fail with: one class per outcome that a caller acts on, the rest is in its attributes.

    IdentityError
    ├── InvalidRequest            the request is wrong; `violations` names the fields (also InvalidScope, InvalidTarget)
    ├── Unauthenticated
    │   ├── InvalidClient         the client_id or the secret was not accepted (RFC 6749 §5.2)
    │   └── InvalidToken          the access token was not accepted (RFC 6750 §3.1)
    ├── PermissionDenied          authenticated, but not allowed
    ├── NotFound
    ├── Conflict
    │   ├── AlreadyExists         the name is taken, or the request_id was used long ago
    │   ├── EtagMismatch          the account has changed since it was read
    │   └── FailedPrecondition    the account's state does not allow this
    ├── OutOfRange                the stream can't go on from there; start over
    ├── RateLimited               over the limit, or the service sheds load; try again after `retry_after`
    ├── Unavailable               no answer: the service, or something it needs, is down
    │   └── DeadlineExceeded      no answer in time; whether the call took effect is unknown
    └── Unimplemented             the server has no such method, or no such grant

Errors are read from `google.rpc.Status` in the trailing metadata (AIP-193).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

DOMAIN = "identity.artstore"
"""`google.rpc.ErrorInfo.domain` of this service's errors."""

DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata that carries a `google.rpc.Status`, by gRPC's convention."""


UNREACHABLE = "UNREACHABLE"
"""The reason where nobody of ours answered; `UNAVAILABLE` is the service's own word for a dependency that is down."""


class Violation(NamedTuple):
    """A field of the request, and what is wrong with it."""

    field: str
    description: str


class IdentityError(Exception):
    """A call that failed: `code` is gRPC's, `reason` a stable word in SCREAMING_SNAKE_CASE, `message` one sentence.

    `retry_after` is set where the service says when to try again; `denial_id` where it refused an authentication, for
    an operator to open.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        violations: tuple[Violation, ...] = (),
        retry_after: timedelta | None = None,
        denial_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = violations
        self.retry_after = retry_after
        self.denial_id = denial_id


class InvalidRequest(IdentityError):
    """The request is malformed, or asks for something out of bounds."""


class InvalidScope(InvalidRequest):
    """The scope is malformed, or more than the account may ask for (RFC 6749 §5.2)."""


class InvalidTarget(InvalidRequest):
    """The audience is malformed, or not one that the account may ask for (RFC 8707 §2)."""


class Unauthenticated(IdentityError):
    """The caller did not prove who it is."""


class InvalidClient(Unauthenticated):
    """Client authentication failed (RFC 6749 §5.2)."""


class InvalidToken(Unauthenticated):
    """The access token is missing, or not valid at this service (RFC 6750 §3.1)."""


class PermissionDenied(IdentityError):
    """The caller may not do this."""


class NotFound(IdentityError):
    """There is no such account, or no such service to check."""


class Conflict(IdentityError):
    """What is there now does not allow this."""


class AlreadyExists(Conflict):
    """The name is taken, or the request_id was used too long ago to repeat its answer."""


class EtagMismatch(Conflict):
    """The account has changed since this etag."""


class FailedPrecondition(Conflict):
    """The account's state does not allow this."""


class OutOfRange(IdentityError):
    """The stream can't go on from that sequence; start over without one."""


class RateLimited(IdentityError):
    """Too many requests: of this account, or for the service as a whole."""


class Unavailable(IdentityError):
    """The service can't be reached, or something it depends on is down."""


class DeadlineExceeded(Unavailable):
    """No answer in time; the call may have taken effect all the same."""


class Unimplemented(IdentityError):
    """The server has no such method, or does not support the grant."""


BY_CODE: dict[grpc.StatusCode, type[IdentityError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: EtagMismatch,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RateLimited,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,  # by a server that shuts down; a caller that gives up gets no error
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
}
"""What a code means by itself; any other is a plain IdentityError."""

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
"""The codes by their numbers, as a `google.rpc.Status` has them."""

BY_REASON: dict[str, type[IdentityError]] = {
    "INVALID_SCOPE": InvalidScope,
    "INVALID_TARGET": InvalidTarget,
    "INVALID_CLIENT": InvalidClient,
    "INVALID_TOKEN": InvalidToken,
}
"""The kinds of error that share a code with another."""


def from_rpc_error(error: Any) -> IdentityError:
    """The exception for a failed call: an AioRpcError, or the RpcError of a channel without asyncio, which has the same
    methods. Without our details `reason` is UNREACHABLE, or the code's name."""
    return _read(_status(error), error.code(), error.details() or "")


def from_status(status: Status) -> IdentityError:
    """The exception for a part of a call that failed by itself, such as one account of an import."""
    return _read(status, CODES.get(status.code, grpc.StatusCode.UNKNOWN))


def _read(status: Status, code: grpc.StatusCode, details: str = "") -> IdentityError:
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        for target in (info, bad, retry):
            if detail.Is(target.DESCRIPTOR):
                detail.Unpack(target)
    if info.domain != DOMAIN:
        info = ErrorInfo(reason=UNREACHABLE if BY_CODE.get(code) is Unavailable else code.name)
    kind = BY_REASON.get(info.metadata.get("kind", ""), BY_CODE.get(code, IdentityError))
    return BY_REASON.get(info.reason, kind)(
        code,
        info.reason,
        status.message or details or f"The call failed: {code.name}.",
        tuple(Violation(v.field, v.description) for v in bad.field_violations),
        retry.retry_delay.ToTimedelta() if retry.HasField("retry_delay") else None,
        info.metadata.get("denial_id", ""),
    )


def _status(error: Any) -> Status:
    """The Status that came with the error; an empty one when none did, or none that can be read."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                break
    return Status()
