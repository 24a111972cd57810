"""What a token source asks the service, when, and how often: both kinds, against a server that answers as told."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import grpc
import pytest
from artstore.identity import (
    Credentials,
    DeadlineExceeded,
    InvalidClient,
    InvalidScope,
    RateLimited,
    Unavailable,
)
from artstore.identity.assertions import ASSERTION_TYPE
from artstore.identity.errors import DOMAIN
from artstore.identity.v1 import token_service_pb2 as pb
from canned import Canned, Refused
from clocks import Clock, eventually
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from joserfc.jwk import ECKey
from joserfc.jwt import decode
from sources import LIFE, ME, asked, failing, flying, opened, tokens


async def test_one_token_for_each_scope_and_audience(server: Canned, kind: str) -> None:
    """Asked for once each, with what was given, and kept."""
    tokens(server)
    async with opened(kind, server.target) as source:
        first = await source.token()
        assert await source.token() == first
        assert await source.token(scope="storage.read", audience="b") != first
        assert await source.token(scope="storage.read", audience=["b"]) == "token-2"
    requests = [request for request, _ in server.named("IssueToken")]
    assert [(r.client_id, r.client_secret, r.scope, list(r.audience)) for r in requests] == [
        ("sa_dev_test_00000000", "the-secret", "", []),
        ("sa_dev_test_00000000", "the-secret", "storage.read", ["b"]),
    ]


async def test_many_callers_are_one_request(server: Canned, kind: str) -> None:
    """Also those who come while it is under way."""
    tokens(server)
    issue, may = server.answers["IssueToken"], asyncio.Event()

    async def slowly(request: Any) -> Any:
        await may.wait()
        return issue(request)

    server.answers["IssueToken"] = slowly
    async with opened(kind, server.target) as source:
        callers = [asyncio.create_task(source.token()) for _ in range(50)]
        await eventually(lambda: asked(server))
        callers += [asyncio.create_task(source.token()) for _ in range(10)]
        await asyncio.sleep(0)
        may.set()
        assert set(await asyncio.gather(*callers)) == {"token-1"}
    assert asked(server) == 1


async def test_a_cancelled_caller_cancels_nobody_else(server: Canned) -> None:
    """The request goes on for the others, though it was the first caller's."""
    tokens(server)
    issue, may = server.answers["IssueToken"], asyncio.Event()

    async def slowly(request: Any) -> Any:
        await may.wait()
        return issue(request)

    server.answers["IssueToken"] = slowly
    async with opened("asyncio", server.target) as source:
        first, second = asyncio.create_task(source.token()), asyncio.create_task(source.token())
        await eventually(lambda: asked(server))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        may.set()
        assert await second == "token-1"
    assert asked(server) == 1


async def test_a_refresh_is_nobodys_wait(server: Canned, kind: str) -> None:
    """While it is under way, and where it fails, the old token is given out; then the new one."""
    tokens(server)
    clock = Clock()
    async with opened(kind, server.target, clock=clock) as source:
        assert await source.token() == "token-1"
        clock.advance(LIFE * 0.81)
        server.answers["IssueToken"] = failing(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        for _ in range(10):
            assert await source.token() == "token-1"
        await eventually(lambda: asked(server) == 2 and not flying(source))
        clock.advance(60)
        tokens(server)
        assert await source.token() == "token-1"
        await eventually(lambda: asked(server) == 3 and not flying(source))
        assert await source.token() == "token-3"
    assert asked(server) == 3


async def test_two_minutes_without_the_service(server: Canned, kind: str) -> None:
    """By a clock of the test's: callers that hold a live token notice nothing, at no second of the outage."""
    tokens(server)
    clock = Clock()
    async with opened(kind, server.target, clock=clock) as source:
        assert await source.token() == "token-1"
        clock.advance(LIFE * 0.81)
        server.answers["IssueToken"] = failing(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        for _ in range(120):
            assert await source.token(timeout=timedelta(microseconds=1)) == "token-1"
            await eventually(lambda: not flying(source))
            clock.advance(1)
        assert 1 < asked(server) < 60


async def test_what_may_pass_is_tried_again(server: Canned, kind: str) -> None:
    """Within the caller's timeout."""
    server.answers["IssueToken"] = failing(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", times=2)
    async with opened(kind, server.target) as source:
        assert await source.token() == "token"
    assert asked(server) == 3


async def test_the_callers_timeout_bounds_it(server: Canned, kind: str) -> None:
    """A service that stays away is an error in time, and it says what the last attempt failed with."""
    server.answers["IssueToken"] = failing(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
    async with opened(kind, server.target) as source:
        with pytest.raises(Unavailable):
            await source.token(timeout=timedelta(seconds=3))
    assert 1 < asked(server) < 12


async def test_a_service_that_does_not_answer(server: Canned, kind: str) -> None:
    """One caller's impatience is its own: it gets DeadlineExceeded, and a patient one the token."""
    tokens(server)
    issue, may = server.answers["IssueToken"], asyncio.Event()

    async def slowly(request: Any) -> Any:
        await may.wait()
        return issue(request)

    server.answers["IssueToken"] = slowly
    async with opened(kind, server.target) as source:
        patient = asyncio.create_task(source.token())
        with pytest.raises(DeadlineExceeded):
            await source.token(timeout=timedelta(seconds=0.1))
        may.set()
        assert await patient == "token-1"


async def test_retry_info_is_obeyed(server: Canned, kind: str) -> None:
    """Told to come in a while, nobody comes before; who can't wait so long is told at once."""
    retry = RetryInfo()
    retry.retry_delay.FromSeconds(30)
    server.answers["IssueToken"] = failing(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry, times=1)
    clock = Clock()
    async with opened(kind, server.target, clock=clock) as source:
        for _ in range(20):
            with pytest.raises(RateLimited) as caught:
                await source.token()
            assert caught.value.retry_after == timedelta(seconds=30)
        assert asked(server) == 1
        clock.advance(31)
        assert await source.token() == "token"


@pytest.mark.parametrize(
    ("code", "reason", "raised"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SCOPE", InvalidScope),
        (grpc.StatusCode.UNAUTHENTICATED, "INVALID_CLIENT", InvalidClient),
    ],
)
async def test_a_refusal_is_not_asked_for_again(
    server: Canned, kind: str, code: grpc.StatusCode, reason: str, raised: type[Exception]
) -> None:
    """Nor is the service asked by each caller: it is remembered for some seconds, and forgotten then."""
    server.answers["IssueToken"] = failing(code, reason, times=1)
    clock = Clock()
    async with opened(kind, server.target, clock=clock) as source:
        results = await asyncio.gather(*(source.token() for _ in range(100)), return_exceptions=True)
        assert {type(result) for result in results} == {raised}
        assert asked(server) == 1
        clock.advance(11)
        assert await source.token() == "token"


class Rotated:
    """A provider whose secret was replaced by another process, as it is found when it is read again."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = list(secrets)
        self.reads = 0

    def current(self) -> Credentials:
        return Credentials(ME["client_id"], self.secrets[0])

    def reread(self) -> Credentials:
        self.reads += 1
        if len(self.secrets) > 1:
            self.secrets.pop(0)
        return self.current()


async def test_a_secret_that_was_replaced_meanwhile(server: Canned, kind: str) -> None:
    """A refused secret is looked up once more, and the one that is there now is tried."""

    def answer(request: pb.IssueTokenRequest) -> pb.IssueTokenResponse:
        if request.client_secret != "new":
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "No.", ErrorInfo(reason="INVALID_CLIENT", domain=DOMAIN))
        return pb.IssueTokenResponse(access_token="token", expires_in=LIFE)

    server.answers["IssueToken"] = answer
    async with opened(kind, server.target, credentials=Rotated("old", "new")) as source:
        assert await source.token() == "token"
    assert asked(server) == 2


async def test_a_request_is_nobodys_own(server: Canned) -> None:
    """It runs outside the context of whoever came first, whose trace or tenant would be in what is logged of it."""
    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    seen: list[str] = []

    class Watching(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(whose.get())

    server.answers["IssueToken"] = failing(grpc.StatusCode.UNAUTHENTICATED, "INVALID_CLIENT")
    logger, handler = logging.getLogger("artstore.identity"), Watching()
    logger.addHandler(handler)
    try:
        async with opened("asyncio", server.target) as source:
            whose.set("the first caller's")
            with pytest.raises(InvalidClient):
                await source.token()
    finally:
        logger.removeHandler(handler)
    assert seen
    assert set(seen) == {"nobody"}


async def test_a_secret_that_is_the_same_is_not_tried_again(server: Canned, kind: str) -> None:
    """Looked up once, found to be the same, and that is the end."""
    server.answers["IssueToken"] = failing(grpc.StatusCode.UNAUTHENTICATED, "INVALID_CLIENT")
    provider = Rotated("old")
    async with opened(kind, server.target, credentials=provider) as source:
        with pytest.raises(InvalidClient):
            await source.token()
    assert (asked(server), provider.reads) == (1, 1)


async def test_a_private_key_in_place_of_a_secret(server: Canned, kind: str) -> None:
    """Each request has an assertion of its own, for the issuer that the service names once."""
    tokens(server)
    server.answers["GetServerMetadata"] = lambda _: pb.GetServerMetadataResponse(issuer="https://identity.example")
    key = ECKey.generate_key("P-256")
    private: dict[str, Any] = dict(key.as_dict(private=True))
    async with opened(kind, server.target, client_id="sa_dev_test_00000000", private_key=private) as source:
        await source.token()
        await source.token(scope="storage.read")
    assertions = [decode(request.client_assertion, key) for request, _ in server.named("IssueToken")]
    assert {(a.claims["iss"], a.claims["aud"]) for a in assertions} == {
        ("sa_dev_test_00000000", "https://identity.example")
    }
    assert len({a.claims["jti"] for a in assertions}) == 2
    assert {r.client_assertion_type for r, _ in server.named("IssueToken")} == {ASSERTION_TYPE}
    assert len(server.named("GetServerMetadata")) == 1


async def test_invalidate(server: Canned, kind: str) -> None:
    """A token that a resource server refused is replaced; one that was only just issued isn't, over and over."""
    tokens(server)
    clock = Clock()
    async with opened(kind, server.target, clock=clock) as source:
        first = await source.token()
        assert not source.invalidate(first)
        clock.advance(60)
        assert source.invalidate(first)
        assert not source.invalidate(first)
        assert await source.token() == "token-2"
    assert asked(server) == 2
