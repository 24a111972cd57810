"""TrustFeed, the Python client's follower, against a real service: what it refuses, and what it survives."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from artstore.identity import Client, TrustFeed
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb

from artstore_grpc.errors import StoreUnavailable
from tests.installation import Account, Installation
from tests.trust.stand import (
    SECONDS,
    Watch,
    claims_of,
    followed,
    revoke,
    token_of,
    turned,
    watches_of,
)


async def test_a_feed_refuses_what_is_refused(service: Installation, user: Account) -> None:
    """The client's feed refuses a token once it is revoked, and those of a suspended account; others it doesn't."""
    async with followed(service, service.account("user")) as feed:
        good, dead = token_of(service, user), token_of(service, user)
        assert not feed.refuses(claims_of(good))
        await turned(lambda: not feed.stale)
        revoke(service, user, dead)
        await turned(lambda: feed.refuses(claims_of(dead)))
        assert not feed.refuses(claims_of(good))
        request = accounts_pb.SuspendServiceAccountRequest(id=user.id)
        service.accounts.SuspendServiceAccount(request, metadata=service.bearer())
        await turned(lambda: feed.refuses(claims_of(good)))


async def test_a_feed_survives_its_token(service: Installation, user: Account) -> None:
    """When its token ends the feed comes back with a new one, from where it was."""
    async with followed(service, user) as feed:
        await turned(lambda: feed.state.sequence > 0)
        service.clock.advance(timedelta(minutes=31))
        await turned(lambda: feed.reconnects > 0)
        token = token_of(service, user)
        revoke(service, user, token)
        await turned(lambda: feed.refuses(claims_of(token)))
        assert feed.last_error is not None
        assert feed.last_error.reason == "TOKEN_ENDED"


async def down() -> Any:
    raise StoreUnavailable("down")


async def test_a_database_that_is_away_is_no_heartbeat(
    service: Installation, user: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that can't read the ledger says nothing, so that its followers know that they are stale; one that begins
    then is told what is known, and not that nothing is missing."""
    async with followed(service, user) as feed:
        await turned(lambda: not feed.stale)
        with monkeypatch.context() as patched:
            patched.setattr(watches_of(service)._replica._store, "head", down)
            await turned(lambda: feed.stale)
            async with followed(service, user) as late:
                assert late.state.keys
                await asyncio.sleep(1.2)
                assert late.staleness == timedelta.max
        await turned(lambda: not feed.stale)


async def test_a_feed_waits_as_it_is_told(service: Installation, user: Account) -> None:
    """Where there are too many streams it comes back when the service says, not at once."""
    token = token_of(service, user)
    taken = [Watch(service, token) for _ in range(2)]
    for watch in taken:
        watch.next()
    began = time.monotonic()
    async with (
        Client(str(service.started.grpc_address), client_id=user.client_id, client_secret=user.secret) as client,
        TrustFeed(client) as feed,
    ):
        await turned(lambda: feed.last_error is not None)
        assert feed.last_error.reason == "TOO_MANY_STREAMS"  # type: ignore[union-attr]
        await asyncio.sleep(0.8)
        assert 1 <= feed.reconnects <= 1 + (time.monotonic() - began), "a second each"
        for watch in taken:
            watch.close()
        await asyncio.wait_for(feed.ready(), SECONDS)
