"""Announcements by Redis: heard by everybody, missed by nobody for long, and no harm when Redis is away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import structlog

from artstore_grpc.ephemeral.announcements import TIMEOUT, RedisAnnouncements
from tests.servers import Redis

SECONDS = 10.0


class Ears:
    """What was heard."""

    def __init__(self) -> None:
        self.heard = asyncio.Queue[None]()

    def __call__(self) -> None:
        self.heard.put_nowait(None)

    async def something(self) -> None:
        async with asyncio.timeout(SECONDS):
            await self.heard.get()


@contextlib.asynccontextmanager
async def process(url: str) -> AsyncIterator[tuple[RedisAnnouncements, Ears]]:
    """One that announces and listens, as each of an installation does."""
    announcements, ears = RedisAnnouncements(url, structlog.get_logger()), Ears()
    listening = asyncio.create_task(announcements.listen(ears))
    yield announcements, ears
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening
    await announcements.close()


async def test_everybody_hears(redis_url: str) -> None:
    """Each process hears each announcement, its own too; and once when it begins to listen, for what it missed."""
    async with process(redis_url) as (one, ears), process(redis_url) as (other, others):
        await ears.something()
        await others.something()
        await one.announce()
        await other.announce()
        for _ in range(2):
            await ears.something()
            await others.something()
        assert ears.heard.empty()
        assert others.heard.empty()


async def test_a_redis_that_is_away_costs_nothing() -> None:
    """Announcing never raises, waits once, and works again when Redis is back; listeners come back by themselves."""
    with Redis() as server:
        async with process(server.url()) as (announcements, ears):
            await ears.something()
            server.stop()
            started = time.monotonic()
            for _ in range(100):
                await announcements.announce()
            assert time.monotonic() - started < 100 * TIMEOUT.total_seconds() / 2
            server.start()
            await ears.something()  # it has subscribed anew
            async with asyncio.timeout(SECONDS):
                while ears.heard.empty():
                    await announcements.announce()
                    await asyncio.wait([asyncio.create_task(asyncio.sleep(0.05))])
