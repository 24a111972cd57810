"""IdentityError ⇄ `google.rpc.Status` (AIP-193): ErrorInfo always, BadRequest and RetryInfo where they apply."""

from __future__ import annotations

from datetime import timedelta
from typing import Any as _Any
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from artstore_grpc import errors

CODES = {code.name: code for code in grpc.StatusCode}
DETAILS_KEY = "grpc-status-details-bin"
"""Trailing metadata that carries the Status, by gRPC's convention."""

BY_CODE: dict[str, type[errors.IdentityError]] = {
    "CANCELLED": errors.Unavailable,
    "UNKNOWN": errors.Internal,
    "DATA_LOSS": errors.Internal,
    **{outcome.grpc: kind for kind, outcome in reversed(errors.OUTCOMES.items())},
    "UNIMPLEMENTED": errors.Unimplemented,
    "PERMISSION_DENIED": errors.PermissionDenied,
    "RESOURCE_EXHAUSTED": errors.Overloaded,
}
"""What a bare gRPC code means, when no ErrorInfo of ours came with it."""

BY_REASON: dict[tuple[str, str], type[errors.IdentityError]] = {
    (outcome.grpc, kind.default_reason): kind for kind, outcome in errors.OUTCOMES.items()
}


def code_of(error: errors.IdentityError) -> grpc.StatusCode:
    return CODES[errors.OUTCOMES[type(error)].grpc]


def to_status(error: errors.IdentityError) -> Status:
    """The error as the caller sees it; `cause` stays here."""
    number: int = code_of(error).value[0]
    return Status(code=number, message=error.message, details=[packed(detail) for detail in details_of(error)])


async def abort(context: grpc.aio.ServicerContext[_Any, _Any], error: errors.IdentityError) -> NoReturn:
    """Ends a call with an error; raises what grpc.aio wants raised."""
    details = ((DETAILS_KEY, to_status(error).SerializeToString()),)
    await context.abort(code_of(error), error.message, details)


def details_of(error: errors.IdentityError) -> list[Message]:
    info = ErrorInfo(reason=error.reason, domain=errors.DOMAIN)
    info.metadata["kind"] = type(error).default_reason
    if error.denial_id:
        info.metadata["denial_id"] = error.denial_id
    details: list[Message] = [info]
    if error.violations:
        fields = [BadRequest.FieldViolation(field=v.field, description=v.description) for v in error.violations]
        details.append(BadRequest(field_violations=fields))
    if error.retry_after is not None:
        details.append(retry_info(error.retry_after))
    return details


def retry_info(after: timedelta) -> RetryInfo:
    info = RetryInfo()
    info.retry_delay.FromTimedelta(after)
    return info


def packed(message: Message) -> Any:
    # As Any.Pack has it, at a third of its price: a refusal has two or three of them.
    return Any(type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}", value=message.SerializeToString())


def from_status(code: grpc.StatusCode, status: Status | None, message: str) -> errors.IdentityError:
    """The error a server of ours answered; a foreign status becomes the class of its code, with its fixed sentence."""
    info, violations, retry_after = unpacked(status)
    if info is None or info.domain != errors.DOMAIN:
        return BY_CODE.get(code.name, errors.Internal)(cause=message, retry_after=retry_after)
    kind = BY_REASON.get((code.name, info.metadata.get("kind", "")), BY_CODE.get(code.name, errors.Internal))
    error = kind(status.message if status else "", reason=info.reason, violations=violations, retry_after=retry_after)
    error.denial_id = info.metadata.get("denial_id", "")
    return error


def unpacked(
    status: Status | None,
) -> tuple[ErrorInfo | None, tuple[errors.Violation, ...], timedelta | None]:
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    found: set[str] = set()
    for detail in status.details if status else ():
        for target in (info, bad, retry):
            if detail.Is(target.DESCRIPTOR) and detail.Unpack(target):
                found.add(target.DESCRIPTOR.name)
    violations = tuple(errors.Violation(v.field, v.description) for v in bad.field_violations)
    after = retry.retry_delay.ToTimedelta() if "RetryInfo" in found else None
    return (info if "ErrorInfo" in found else None), violations, after
