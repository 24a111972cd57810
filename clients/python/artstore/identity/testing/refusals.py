"""What the authority refuses with, in the service's own words: the code, the reason, the sentence, the details.

A refusal is an exception of the client's own (`artstore.identity.errors`) that knows its `kind`: the reason of its
class at the service, by which clients tell apart what shares a code. Why anything is refused is for others.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

import grpc
from artstore.identity import errors
from artstore.identity.errors import DOMAIN, IdentityError, Violation
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

KINDS: dict[str, tuple[grpc.StatusCode, str]] = {
    "INVALID_REQUEST": (grpc.StatusCode.INVALID_ARGUMENT, "The request is malformed."),
    "UNSUPPORTED_GRANT_TYPE": (grpc.StatusCode.UNIMPLEMENTED, "The only grant_type is client_credentials."),
    "UNAUTHORIZED_CLIENT": (grpc.StatusCode.PERMISSION_DENIED, "This account may not use this grant."),
    "INVALID_SCOPE": (
        grpc.StatusCode.INVALID_ARGUMENT,
        "The scope is malformed, or exceeds what this account may ask for.",
    ),
    "INVALID_TARGET": (
        grpc.StatusCode.INVALID_ARGUMENT,
        "The audience is malformed, or not one that this account may ask for.",
    ),
    "INVALID_CLIENT": (grpc.StatusCode.UNAUTHENTICATED, "Client authentication failed."),
    "INVALID_TOKEN": (grpc.StatusCode.UNAUTHENTICATED, "The access token is missing or not valid here."),
    "PERMISSION_DENIED": (grpc.StatusCode.PERMISSION_DENIED, "This caller may not do this."),
    "NOT_FOUND": (grpc.StatusCode.NOT_FOUND, "There is no such account."),
    "ALREADY_EXISTS": (grpc.StatusCode.ALREADY_EXISTS, "It exists already."),
    "ETAG_MISMATCH": (grpc.StatusCode.ABORTED, "The account has changed since this etag; read it again."),
    "FAILED_PRECONDITION": (grpc.StatusCode.FAILED_PRECONDITION, "The account's state does not allow this."),
    "SEQUENCE_UNKNOWN": (
        grpc.StatusCode.OUT_OF_RANGE,
        "This server can't go on from that sequence; start over without one.",
    ),
    "RATE_LIMITED": (grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many requests; try again later."),
    "DEADLINE_EXCEEDED": (grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline passed before the request was done."),
    "UNAVAILABLE": (grpc.StatusCode.UNAVAILABLE, "A dependency is down; try again later."),
    "UNIMPLEMENTED": (grpc.StatusCode.UNIMPLEMENTED, "There is no such method."),
}
"""The service's classes of errors by their own reason: gRPC's code, and the sentence where no better one is given."""

DENIALS = ("INVALID_CLIENT", "INVALID_TOKEN")
"""Kinds whose cause the caller isn't told."""

OF_CLASS: dict[type[IdentityError], str] = {
    errors.InvalidRequest: "INVALID_REQUEST",
    errors.InvalidScope: "INVALID_SCOPE",
    errors.InvalidTarget: "INVALID_TARGET",
    errors.InvalidClient: "INVALID_CLIENT",
    errors.InvalidToken: "INVALID_TOKEN",
    errors.PermissionDenied: "PERMISSION_DENIED",
    errors.NotFound: "NOT_FOUND",
    errors.AlreadyExists: "ALREADY_EXISTS",
    errors.EtagMismatch: "ETAG_MISMATCH",
    errors.FailedPrecondition: "FAILED_PRECONDITION",
    errors.OutOfRange: "SEQUENCE_UNKNOWN",
    errors.RateLimited: "RATE_LIMITED",
    errors.Unavailable: "UNAVAILABLE",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
    errors.Unimplemented: "UNIMPLEMENTED",
}
"""What the client's classes are at the service."""

PLANNED_RETRY = timedelta(seconds=1)
"""When a planned RateLimited or Unavailable says to try again, where the test doesn't say."""


class Refused(IdentityError):
    """A refusal on its way out. `cause` is for the test that asks `FakeAuthority.denials`, not for the caller."""

    kind = ""
    cause = ""


def refused(
    kind: str,
    message: str = "",
    *,
    reason: str = "",
    violations: tuple[Violation, ...] = (),
    retry_after: timedelta | None = None,
    cause: str = "",
) -> Refused:
    """A refusal of a kind. A denial of authentication gets an id, by which its cause can be looked up."""
    code, sentence = KINDS[kind]
    denial_id = secrets.token_urlsafe(16) if kind in DENIALS else ""
    error = Refused(code, reason or kind, message or sentence, violations, retry_after, denial_id)
    error.kind, error.cause = kind, cause
    return error


def invalid(field: str, description: str, reason: str = "") -> Refused:
    """An INVALID_ARGUMENT about one field; `description` goes on after the field's name."""
    violations = (Violation(field, description),)
    return refused("INVALID_REQUEST", f"{field} {description}.", reason=reason, violations=violations)


def planned(error: IdentityError | type[IdentityError]) -> IdentityError:
    """What a test has a call fail with: the error it gives, or one of the class it names."""
    if isinstance(error, IdentityError):
        return error
    kind = OF_CLASS.get(error)
    if kind is None:
        raise ValueError(f"{error.__name__} stands for no single answer of the service: give an instance.")
    return refused(kind, retry_after=PLANNED_RETRY if kind in ("RATE_LIMITED", "UNAVAILABLE") else None)


def status_of(error: IdentityError) -> Status:
    """The refusal as it goes on the wire (AIP-193)."""
    kind = error.kind if isinstance(error, Refused) else OF_CLASS.get(type(error), error.reason)
    metadata = {"kind": kind} | ({"denial_id": error.denial_id} if error.denial_id else {})
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.violations:
        fields = [BadRequest.FieldViolation(field=v.field, description=v.description) for v in error.violations]
        details.append(BadRequest(field_violations=fields))
    if error.retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        details.append(retry)
    number: int = error.code.value[0]
    return Status(code=number, message=error.message, details=[packed(detail) for detail in details])


def packed(message: Message) -> Any:
    wrapped = Any()
    wrapped.Pack(message)
    return wrapped
