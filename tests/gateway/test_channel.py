"""A gateway that runs alone: every error comes back as it was, and no server is 503."""

from __future__ import annotations

import grpc
import httpx
import pytest
from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc.call import Call
from artstore_grpc.errors import DeadlineExceeded, IdentityError, Internal, Unavailable, Unimplemented
from artstore_grpc.gateway.channel import ChannelBackend, identity_error, metadata_of
from artstore_grpc.listeners import bind
from tests.gateway.conftest import ANY, Stage

ISSUE = "artstore.identity.v1.TokenService/IssueToken"


def unreachable() -> grpc.aio.Channel:
    return grpc.aio.insecure_channel("127.0.0.1:1")


async def test_no_server_is_unavailable() -> None:
    """A clear refusal at once, and unready."""
    async with unreachable() as channel:
        backend = ChannelBackend(channel)
        with pytest.raises(Unavailable):
            await backend(pb.IssueTokenRequest(), Call(ISSUE, "127.0.0.1", timeout_seconds=5))
        assert not await backend.ready()


async def test_a_closed_channel_is_unavailable() -> None:
    """So is a gateway that stops."""
    channel = unreachable()
    backend = ChannelBackend(channel)
    await channel.close()
    with pytest.raises(Unavailable):
        await backend(pb.IssueTokenRequest(), Call(ISSUE, "127.0.0.1"))
    assert not await backend.ready()


async def test_an_unknown_method_is_unimplemented() -> None:
    """Nothing is sent for it."""
    async with unreachable() as channel:
        with pytest.raises(Unimplemented):
            await ChannelBackend(channel)(pb.IssueTokenRequest(), Call("x/Y", "127.0.0.1"))


def test_the_metadata_of_a_call() -> None:
    """What the pipeline would have seen itself; what is missing is not sent."""
    call = Call(ISSUE, "203.0.113.7", authorization="Basic x", request_id="r")
    assert metadata_of(call, "") == (
        ("authorization", "Basic x"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-request-id", "r"),
    )


@pytest.mark.parametrize("details", [(), ("grpc-status-details-bin", b"\xff"), ("grpc-status-details-bin", "text")])
def test_an_error_of_another_tool_says_no_more_than_its_code(details: tuple[str, bytes] | tuple[()]) -> None:
    """Its text is a cause for the log."""
    metadata = grpc.aio.Metadata(*([details] if details else []))
    failed = grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN, grpc.aio.Metadata(), metadata, details="canary")
    error: IdentityError = identity_error(failed)
    assert isinstance(error, Internal)
    assert "canary" not in error.message


def test_both_doors_answer_alike(stage: Stage, http: httpx.Client) -> None:
    """An error passes through the channel unchanged: status, reason, violations, Retry-After."""
    token = dict(stage.installation.bearer())["authorization"]
    for path in ("?page_size=-1", "?filter=nonsense", "?page_token=x", "/nobody"):
        answers = []
        for url in stage.urls.values():
            response = http.get(f"{url}/api/v1/service-accounts{path}", headers={"Authorization": token})
            answers.append((response.status_code, response.json()))
        assert answers[0] == answers[1], path
        assert answers[0][0] in (400, 404)


async def test_a_server_that_does_not_answer_is_a_passed_deadline() -> None:
    """The call's own time limit holds on the way too."""
    with bind(ANY) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        async with grpc.aio.insecure_channel(target) as channel:
            with pytest.raises((DeadlineExceeded, Unavailable)):
                await ChannelBackend(channel)(pb.IssueTokenRequest(), Call(ISSUE, "127.0.0.1", timeout_seconds=0.1))
