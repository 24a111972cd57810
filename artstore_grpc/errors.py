"""One base, one class per outcome that a caller can act on; doors translate them by the one table `OUTCOMES`.

    IdentityError
    ├── InvalidRequest            the request is malformed; `violations` names the fields
    ├── UnsupportedGrantType      RFC 6749 §5.2
    ├── UnauthorizedClient        the account may not use this grant
    ├── InvalidScope, InvalidTarget   RFC 6749 §5.2, RFC 8707 §2
    ├── InvalidClient             client authentication failed; `cause` is for the log only
    ├── InvalidToken              bearer authentication failed (RFC 6750 §3.1); `cause` is for the log only
    ├── PermissionDenied          authenticated, but not allowed
    ├── NotFound, AlreadyExists, EtagMismatch, FailedPrecondition
    ├── OutOfRange                no stream can go on from there; start over
    ├── RateLimited, Overloaded   try again after `retry_after`
    ├── DeadlineExceeded, Unavailable
    ├── Unimplemented             no such method
    └── Internal                  a defect; the log has the traceback

`reason` is stable and SCREAMING_SNAKE_CASE (AIP-193); `message` is a fixed sentence that may name a field or a bound,
never a value that was sent. This module decides what a caller is told; it knows nothing of protobuf or HTTP libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Self

DOMAIN = "identity.artstore"
"""`google.rpc.ErrorInfo.domain` of every error."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A field and what is wrong with it, as `google.rpc.BadRequest.FieldViolation` says it."""

    field: str
    description: str


class IdentityError(Exception):
    """The base: a fixed sentence for the caller, a stable reason, and the cause for the log."""

    default_reason = "INTERNAL"
    default_message = "The service failed; the error is logged."
    denied = False
    """Whether it denies an authentication, so that the caller gets the sealed cause."""

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "",
        violations: tuple[Violation, ...] = (),
        retry_after: timedelta | None = None,
        cause: str = "",
    ) -> None:
        self.message = message or self.default_message
        self.reason = reason or self.default_reason
        self.violations = violations
        self.retry_after = retry_after
        self.cause = cause
        self.whose = ("", "")
        """The id and the client_id of the account that was denied, where it is one that exists; for the ledger only."""
        self.denial_id = ""
        """The sealed cause, where authentication was denied; set by the pipeline."""
        super().__init__(self.message)

    def of(self, account_id: str, client_id: str) -> Self:
        """The same, with the account that it denies."""
        self.whose = (account_id, client_id)
        return self


class InvalidRequest(IdentityError):
    default_reason = "INVALID_REQUEST"
    default_message = "The request is malformed."


def invalid(field: str, description: str, reason: str = "") -> InvalidRequest:
    """An InvalidRequest about one field; `description` goes on after the field's name."""
    return InvalidRequest(f"{field} {description}.", reason=reason, violations=(Violation(field, description),))


class UnsupportedGrantType(IdentityError):
    default_reason = "UNSUPPORTED_GRANT_TYPE"
    default_message = "The only grant_type is client_credentials."


class UnauthorizedClient(IdentityError):
    default_reason = "UNAUTHORIZED_CLIENT"
    default_message = "This account may not use this grant."


class InvalidScope(IdentityError):
    default_reason = "INVALID_SCOPE"
    default_message = "The scope is malformed, or exceeds what this account may ask for."


class InvalidTarget(IdentityError):
    default_reason = "INVALID_TARGET"
    default_message = "The audience is malformed, or not one that this account may ask for."


class InvalidClient(IdentityError):
    default_reason = "INVALID_CLIENT"
    denied = True
    default_message = "Client authentication failed."


class InvalidToken(IdentityError):
    default_reason = "INVALID_TOKEN"
    denied = True
    default_message = "The access token is missing or not valid here."


class PermissionDenied(IdentityError):
    default_reason = "PERMISSION_DENIED"
    default_message = "This caller may not do this."


class NotFound(IdentityError):
    default_reason = "NOT_FOUND"
    default_message = "There is no such account."


class AlreadyExists(IdentityError):
    default_reason = "ALREADY_EXISTS"
    default_message = "It exists already."


class EtagMismatch(IdentityError):
    default_reason = "ETAG_MISMATCH"
    default_message = "The account has changed since this etag; read it again."


class FailedPrecondition(IdentityError):
    default_reason = "FAILED_PRECONDITION"
    default_message = "The account's state does not allow this."


class OutOfRange(IdentityError):
    default_reason = "SEQUENCE_UNKNOWN"
    default_message = "This server can't go on from that sequence; start over without one."


class RateLimited(IdentityError):
    default_reason = "RATE_LIMITED"
    default_message = "Too many requests; try again later."


BUSY_RETRY = timedelta(seconds=1)
"""When who was told that the service is busy may try again."""


class Overloaded(IdentityError):
    default_reason = "OVERLOADED"
    default_message = "The service is busy; try again later."


class DeadlineExceeded(IdentityError):
    default_reason = "DEADLINE_EXCEEDED"
    default_message = "The deadline passed before the request was done."


class Unavailable(IdentityError):
    default_reason = "UNAVAILABLE"
    default_message = "A dependency is down; try again later."


class Unimplemented(IdentityError):
    default_reason = "UNIMPLEMENTED"
    default_message = "There is no such method."


class Internal(IdentityError):
    """A defect in this service."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the doors say an error: gRPC's code by name, the HTTP status, RFC 6749 §5.2's code at the token endpoints."""

    grpc: str
    http: int
    oauth: str


OUTCOMES: dict[type[IdentityError], Outcome] = {
    InvalidRequest: Outcome("INVALID_ARGUMENT", 400, "invalid_request"),
    UnsupportedGrantType: Outcome("UNIMPLEMENTED", 400, "unsupported_grant_type"),
    UnauthorizedClient: Outcome("PERMISSION_DENIED", 400, "unauthorized_client"),
    InvalidScope: Outcome("INVALID_ARGUMENT", 400, "invalid_scope"),
    InvalidTarget: Outcome("INVALID_ARGUMENT", 400, "invalid_target"),
    InvalidClient: Outcome("UNAUTHENTICATED", 401, "invalid_client"),
    InvalidToken: Outcome("UNAUTHENTICATED", 401, "invalid_token"),
    PermissionDenied: Outcome("PERMISSION_DENIED", 403, "access_denied"),
    NotFound: Outcome("NOT_FOUND", 404, "invalid_request"),
    AlreadyExists: Outcome("ALREADY_EXISTS", 409, "invalid_request"),
    EtagMismatch: Outcome("ABORTED", 409, "invalid_request"),
    FailedPrecondition: Outcome("FAILED_PRECONDITION", 400, "invalid_request"),
    OutOfRange: Outcome("OUT_OF_RANGE", 400, "invalid_request"),
    RateLimited: Outcome("RESOURCE_EXHAUSTED", 429, "temporarily_unavailable"),
    Overloaded: Outcome("RESOURCE_EXHAUSTED", 429, "temporarily_unavailable"),
    DeadlineExceeded: Outcome("DEADLINE_EXCEEDED", 504, "temporarily_unavailable"),
    Unavailable: Outcome("UNAVAILABLE", 503, "temporarily_unavailable"),
    Unimplemented: Outcome("UNIMPLEMENTED", 404, "invalid_request"),
    Internal: Outcome("INTERNAL", 500, "server_error"),
}


class StoreUnavailable(Exception):
    """The store can't be reached, or didn't answer in time; the pipeline answers Unavailable."""


class MissingPrivilege(Exception):
    """The database's role may not do this; one sentence."""


class KeyServiceUnavailable(Exception):
    """The key service that holds the key-encryption key can't be reached, or failed; one sentence that says which."""


class Conflict(Exception):
    """A unique constraint refused a write; `constraint` is its name in store/tables.py."""

    def __init__(self, constraint: str) -> None:
        self.constraint = constraint
        super().__init__(constraint)


class CannotBind(Exception):
    """An address is taken, or isn't this machine's; the message is one sentence that says which."""


class LeaseLost(Exception):
    """The lease that guards a transaction has passed to another holder."""
