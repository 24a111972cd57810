"""A Redis that goes silent behind TLS: nobody waits for its last word, neither a call nor a stop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
import structlog

from artstore_grpc.ephemeral.announcements import RedisAnnouncements
from artstore_grpc.ephemeral.memory import MemoryLimiter
from artstore_grpc.ephemeral.probe import RedisProbe
from artstore_grpc.ephemeral.redis import RedisLimiter
from artstore_grpc.ephemeral.registration import Entry, Registration
from artstore_grpc.ephemeral.used_assertions import RedisUsedAssertions
from artstore_grpc.errors import Unavailable
from tests.silence import Silenced, silenced

AT_ONCE_SECONDS = 8.0
"""Against the 30 s that asyncio has TLS wait; on a busy machine."""
PATIENCE_SECONDS = 60.0
NOW = datetime(2030, 1, 1, tzinfo=UTC)

Close = Callable[[], Awaitable[None]]


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Silenced]:
    """Its connections have ended by the end: what isn't waited for goes on for as long as its loop does."""
    with silenced(tmp_path) as made:
        yield made
    async with asyncio.timeout(PATIENCE_SECONDS):
        while connections(made.port):  # noqa: ASYNC110 - the system's state
            await asyncio.sleep(0.01)


def connections(port: int) -> list[object]:
    return [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]


async def limiter(url: str) -> Close:
    made = RedisLimiter(url, fallback=MemoryLimiter(), timeout=timedelta(seconds=PATIENCE_SECONDS))
    assert await made.charge("key", 10) is None
    assert made.available
    return made.close


async def probe(url: str) -> Close:
    made = RedisProbe(url)
    while not made.up:
        await made.run()
    return made.close


async def announcements(url: str) -> Close:
    made, heard = RedisAnnouncements(url, structlog.get_logger()), asyncio.Event()
    listening = asyncio.create_task(made.listen(heard.set))
    await heard.wait()

    async def close() -> None:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        await made.close()

    return close


async def used_assertions(url: str) -> Close:
    made = RedisUsedAssertions(url, timeout=timedelta(seconds=PATIENCE_SECONDS))
    assert await made.use(b"key", NOW + timedelta(hours=1), NOW)
    return made.close


async def registration(url: str) -> Close:
    registered = asyncio.Event()

    class Told:
        def info(self, *_: object, **__: object) -> None:
            registered.set()

        warning = info

    entry = Entry(address="127.0.0.1:1", version="0", started=NOW)
    made = Registration(url, instance="one", entry=entry, ready=lambda: True, logger=Told())  # type: ignore[arg-type]
    keeping = asyncio.create_task(made.keep())
    await registered.wait()

    async def close() -> None:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        await made.remove()
        await made.close()

    return close


@pytest.mark.parametrize("opened", [limiter, probe, announcements, used_assertions, registration])
async def test_no_stop_waits_for_it(opened: Callable[[str], Awaitable[Close]], redis: Silenced) -> None:
    """What has a connection is closed soon after Redis fell silent."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        close = await opened(redis.url)
    redis.fall_silent()
    began = time.monotonic()
    await close()
    assert time.monotonic() - began < AT_ONCE_SECONDS


async def test_no_call_waits_for_it(redis: Silenced) -> None:
    """A call fails when its time is over, with an idle connection at hand that is as dead."""
    made = RedisUsedAssertions(redis.url, timeout=timedelta(seconds=1))
    expiry = NOW + timedelta(hours=1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with contextlib.suppress(Unavailable):  # on a busy machine
                await asyncio.gather(*(made.use(key, expiry, NOW) for key in (b"a", b"b")))
                break
    redis.fall_silent()
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await made.use(b"c", expiry, NOW)
    assert time.monotonic() - began < AT_ONCE_SECONDS
    await made.close()
