"""The faults, the limits and the clock of the authority for tests."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from artstore.identity import (
    Client,
    IdentityError,
    InvalidClient,
    RateLimited,
    TrustFeed,
    Unavailable,
)
from artstore.identity.testing import FakeAuthority
from faked import SECONDS, claims_of, client, turned


async def test_an_authority_that_is_down(authority: FakeAuthority) -> None:
    """Every call is UNAVAILABLE without a word of ours, an open feed ends, and then all is as before."""
    account = authority.account()
    async with client(authority, account) as opened, TrustFeed(opened) as feed:
        await asyncio.wait_for(feed.ready(), SECONDS)
        authority.down()
        await turned(lambda: feed.last_error)
        with pytest.raises(Unavailable) as caught:
            await opened.issue_token()
        assert (caught.value.reason, caught.value.retry_after) == ("UNREACHABLE", None)
        authority.up()
        assert await opened.issue_token()
        await turned(lambda: not feed.stale)


async def test_the_next_calls_fail(authority: FakeAuthority) -> None:
    """So many of them, of that method, as asked: by a class, by an error with its details, by a bare code."""
    account = authority.account()
    authority.fail_next("IssueToken", RateLimited)
    busy = Unavailable(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", "Down.", retry_after=timedelta(seconds=7))
    authority.fail_next("IssueToken", busy, times=2)
    authority.fail_next("IssueToken", grpc.StatusCode.INTERNAL)
    seen: list[tuple[str, str, timedelta | None]] = []
    async with client(authority, account) as opened:
        for _ in range(4):
            assert await opened.json_web_key_set()
            with pytest.raises(IdentityError) as caught:
                await opened.issue_token()
            seen.append((type(caught.value).__name__, caught.value.reason, caught.value.retry_after))
        assert await opened.issue_token()
    assert seen == [
        ("RateLimited", "RATE_LIMITED", timedelta(seconds=1)),
        *[("Unavailable", "DATABASE_UNAVAILABLE", timedelta(seconds=7))] * 2,
        ("IdentityError", "INTERNAL", None),
    ]
    assert authority.calls == {"IssueToken": 5, "GetJsonWebKeySet": 4}


@pytest.mark.parametrize("error", [InvalidClient, RateLimited, Unavailable])
async def test_a_class_comes_back_as_itself(authority: FakeAuthority, error: type[IdentityError]) -> None:
    """What a test orders is what its client raises."""
    authority.fail_next("GetServerMetadata", error)
    async with Client(authority.target) as opened:
        with pytest.raises(error) as caught:
            await opened.server_metadata()
    assert type(caught.value) is error


async def test_faults_that_can_not_be(authority: FakeAuthority) -> None:
    """A method that doesn't exist, a class that stands for nothing, and OK."""
    for method, error in (("Issue", Unavailable), ("IssueToken", IdentityError), ("IssueToken", grpc.StatusCode.OK)):
        with pytest.raises(ValueError, match=r"."):
            authority.fail_next(method, error)


async def test_a_slow_authority(authority: FakeAuthority) -> None:
    """Each call waits, and others meanwhile do too rather than one after the other; a stop waits for none."""
    authority.delay = timedelta(seconds=1)
    async with Client(authority.target) as opened:
        started = time.monotonic()
        await asyncio.gather(*(opened.server_metadata() for _ in range(10)))
        assert 1 <= time.monotonic() - started < 9
        authority.delay = timedelta(minutes=5)
        waiting = asyncio.create_task(opened.server_metadata())
        await turned(lambda: authority.calls["GetServerMetadata"] == 11)
        started = time.monotonic()
        await authority.__aexit__()
        assert time.monotonic() - started < 30
        with pytest.raises(Unavailable):
            await waiting
        await authority.__aenter__()  # for the fixture to end


async def test_a_limit(authority: FakeAuthority) -> None:
    """An account has none unless it is given one; the wait that is told is enough."""
    unlimited, limited = authority.account(), authority.account(rate_limit=2)
    async with client(authority, unlimited) as opened:
        for _ in range(150):
            await opened.issue_token()
    async with client(authority, limited) as opened:
        for _ in range(2):
            await opened.issue_token()
        with pytest.raises(RateLimited) as caught:
            await opened.issue_token()
        assert caught.value.retry_after
        assert caught.value.retry_after <= timedelta(minutes=1)
        authority.clock.advance(caught.value.retry_after)
        assert await opened.issue_token()


async def test_the_clock(authority: FakeAuthority) -> None:
    """Moved by seconds or a timedelta, or set: tokens are issued at its time and expire by it."""
    account = authority.account()
    async with client(authority, account) as opened:
        token = (await opened.issue_token()).access_token
        authority.clock.advance(1799)
        assert (await opened.introspect(token)).active
        authority.clock.advance(timedelta(seconds=2))
        assert not (await opened.introspect(token)).active
        authority.clock.set(datetime(2030, 1, 1, tzinfo=UTC))
        with pytest.raises(InvalidClient):  # the secret has expired
            await opened.issue_token()
        again = authority.account()
        assert datetime.fromtimestamp(claims_of(authority.token(again))["iat"], UTC).year == 2030
