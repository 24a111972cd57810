"""A failed call becomes the exception that its caller can act on."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from artstore import identity
from artstore.identity import errors
from canned import Canned, Refused
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

Code = grpc.StatusCode

OURS = [
    (Code.INVALID_ARGUMENT, "INVALID_REQUEST", identity.InvalidRequest),
    (Code.INVALID_ARGUMENT, "INVALID_SCOPE", identity.InvalidScope),
    (Code.INVALID_ARGUMENT, "INVALID_TARGET", identity.InvalidTarget),
    (Code.UNAUTHENTICATED, "INVALID_CLIENT", identity.InvalidClient),
    (Code.UNAUTHENTICATED, "INVALID_TOKEN", identity.InvalidToken),
    (Code.PERMISSION_DENIED, "PERMISSION_DENIED", identity.PermissionDenied),
    (Code.PERMISSION_DENIED, "UNAUTHORIZED_CLIENT", identity.PermissionDenied),
    (Code.NOT_FOUND, "NOT_FOUND", identity.NotFound),
    (Code.ALREADY_EXISTS, "ALREADY_EXISTS", identity.AlreadyExists),
    (Code.ABORTED, "ETAG_MISMATCH", identity.EtagMismatch),
    (Code.FAILED_PRECONDITION, "FAILED_PRECONDITION", identity.FailedPrecondition),
    (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", identity.RateLimited),
    (Code.RESOURCE_EXHAUSTED, "OVERLOADED", identity.RateLimited),
    (Code.UNAVAILABLE, "UNAVAILABLE", identity.Unavailable),
    (Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", identity.DeadlineExceeded),
    (Code.UNIMPLEMENTED, "UNSUPPORTED_GRANT_TYPE", identity.Unimplemented),
    (Code.INTERNAL, "INTERNAL", identity.IdentityError),
]


def info(reason: str, **metadata: str) -> ErrorInfo:
    return ErrorInfo(reason=reason, domain=errors.DOMAIN, metadata=metadata)


async def failure(server: Canned, client: identity.Client, refused: Refused) -> identity.IdentityError:
    def refuse(_: object) -> Message:
        raise refused

    server.answers["IssueToken"] = refuse
    with pytest.raises(identity.IdentityError) as caught:
        await client.issue_token()
    return caught.value


@pytest.mark.parametrize(("code", "reason", "kind"), OURS, ids=[row[1] for row in OURS])
async def test_reason_decides(
    server: Canned, client: identity.Client, code: grpc.StatusCode, reason: str, kind: type
) -> None:
    """The service's reason decides the class; code, reason and sentence are kept."""
    error = await failure(server, client, Refused(code, "A fixed sentence.", info(reason, kind=reason)))
    assert type(error) is kind
    assert (error.code, error.reason, error.message, str(error)) == (
        code,
        reason,
        "A fixed sentence.",
        "A fixed sentence.",
    )


async def test_kind_decides_where_the_reason_is_finer(server: Canned, client: identity.Client) -> None:
    """A reason this client doesn't know still becomes the class of the error's kind."""
    error = await failure(
        server, client, Refused(Code.INVALID_ARGUMENT, "No.", info("SCOPE_NOT_ALLOWED", kind="INVALID_SCOPE"))
    )
    assert type(error) is identity.InvalidScope
    assert error.reason == "SCOPE_NOT_ALLOWED"


async def test_details_are_kept(server: Canned, client: identity.Client) -> None:
    """Violations, the time to wait and the denial's id reach the caller."""
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="scope", description="is too long")])
    retry = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    error = await failure(
        server,
        client,
        Refused(Code.RESOURCE_EXHAUSTED, "Wait.", info("RATE_LIMITED", denial_id="sealed"), bad, retry),
    )
    assert error.violations == (identity.Violation("scope", "is too long"),)
    assert error.retry_after == timedelta(seconds=2.5)
    assert error.denial_id == "sealed"


async def test_without_details(server: Canned, client: identity.Client) -> None:
    """An answer that is not the service's own is known by its code."""
    error = await failure(server, client, Refused(Code.UNAUTHENTICATED, "a proxy says no"))
    assert type(error) is identity.Unauthenticated
    assert (error.reason, error.message) == ("UNAUTHENTICATED", "a proxy says no")
    assert (error.violations, error.retry_after, error.denial_id) == ((), None, "")


async def test_foreign_domain_is_no_reason(server: Canned, client: identity.Client) -> None:
    """Another service's ErrorInfo does not pass for this one's."""
    foreign = ErrorInfo(reason="INVALID_CLIENT", domain="elsewhere.example", metadata={"denial_id": "x"})
    error = await failure(server, client, Refused(Code.UNAVAILABLE, "down", foreign))
    assert type(error) is identity.Unavailable
    assert (error.reason, error.denial_id) == ("UNREACHABLE", "")


async def test_unreadable_details(server: Canned, client: identity.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Details that are no `google.rpc.Status` are ignored."""
    monkeypatch.setattr(Refused, "trailing_metadata", lambda _: (("grpc-status-details-bin", b"\xff\xff"),))
    error = await failure(server, client, Refused(Code.NOT_FOUND, "gone"))
    assert type(error) is identity.NotFound
    assert error.message == "gone"


async def test_nobody_listens() -> None:
    """A service that can't be reached is Unavailable, at once."""
    async with identity.Client("127.0.0.1:1", timeout=timedelta(seconds=5)) as client:
        with pytest.raises(identity.Unavailable) as caught:
            await client.server_metadata()
    assert caught.value.reason == errors.UNREACHABLE


async def test_deadline(server: Canned) -> None:
    """A call that is not answered in time is DeadlineExceeded, a kind of Unavailable."""

    async def never(_: object) -> Message:
        return await asyncio.get_running_loop().create_future()

    server.answers["GetServerMetadata"] = never
    async with identity.Client(server.target, timeout=timedelta(milliseconds=50)) as client:
        with pytest.raises(identity.DeadlineExceeded):
            await client.server_metadata()


def test_a_timeout_is_positive() -> None:
    """gRPC reads a deadline of zero as none at all; the client refuses it."""
    with pytest.raises(ValueError, match="timeout"):
        identity.Client("127.0.0.1:1", timeout=timedelta(0))


def test_every_code_but_defects_has_a_class() -> None:
    """What is left to the plain IdentityError are defects."""
    left = set(grpc.StatusCode) - set(errors.BY_CODE)
    assert left == {Code.OK, Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS}
