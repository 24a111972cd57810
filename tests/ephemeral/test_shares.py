"""Shares of limits: what they save, and what they may never cost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import redis.asyncio

from artstore_grpc.ephemeral.memory import MemoryLimiter
from artstore_grpc.ephemeral.redis import RedisLimiter
from artstore_grpc.ephemeral.shares import LIFETIME_SECONDS, MAX_SHARE, PARTS, Shares
from tests.ephemeral.conftest import Clock
from tests.ephemeral.test_redis import limiter_on

HIGH = 1_000_000
LOW = 2 * PARTS - 1


async def commands(url: str) -> int:
    """How many scripts the server has run."""
    async with redis.asyncio.from_url(url) as client:
        stats = await client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


async def test_a_busy_caller_asks_seldom(redis_server_url: str, prefix: str) -> None:
    """A thousand requests of a caller with a high limit cost few round trips, and are all admitted."""
    async with limiter_on(redis_server_url, prefix=prefix) as limiter:
        await limiter.charge("a", HIGH)
        before = await commands(redis_server_url)
        for _ in range(1000):
            assert await limiter.charge("a", HIGH) is None
        assert await commands(redis_server_url) - before <= 2 * 1000 // MAX_SHARE


async def test_a_low_limit_is_counted_one_by_one(redis_server_url: str, prefix: str) -> None:
    """A caller whose limit has no share asks for each request, so that none is lost."""
    async with limiter_on(redis_server_url, prefix=prefix) as limiter:
        before = await commands(redis_server_url)
        for _ in range(50):
            assert await limiter.charge("a", LOW) is None
        assert await commands(redis_server_url) - before == 50


async def test_shares_never_add_up_to_more_than_the_limit(redis_server_url: str, prefix: str) -> None:
    """Four processes that take shares of one limit at once admit no more than it, and nearly all of it."""
    limit = 3 * PARTS  # small shares, so that the test is short
    async with AsyncExitStack() as stack:
        limiters = [await stack.enter_async_context(limiter_on(redis_server_url, prefix=prefix)) for _ in range(4)]

        async def spent(limiter: RedisLimiter) -> int:
            admitted = 0
            while await limiter.charge("a", limit) is None:
                admitted += 1
            return admitted

        total = sum(await asyncio.gather(*map(spent, limiters)))
    assert 0.95 * limit <= total <= limit


async def test_many_at_once_hold_one_share(redis_server_url: str, prefix: str) -> None:
    """However many requests of a caller come at once, one takes a share: nearly all that is charged is spent."""
    async with limiter_on(redis_server_url, prefix=prefix) as limiter:
        await limiter.charge("a", HIGH)

        async def busy() -> None:
            for _ in range(50):
                assert await limiter.charge("a", HIGH) is None

        await asyncio.gather(*(busy() for _ in range(40)))
    async with redis.asyncio.from_url(redis_server_url) as client:
        charged = int(await client.hget(f"{prefix}a", "total"))  # type: ignore[misc]
    assert 2001 <= charged <= 2001 + MAX_SHARE


async def test_a_lost_redis_takes_its_shares_with_it(prefix: str) -> None:
    """What a server that is gone has given out is not spent: this process counts alone from then on."""
    shares = Shares()
    shares.taken("a", 10)
    shares.clear()
    assert not shares.spend("a")
    limiter = RedisLimiter("unix:///nowhere/redis.sock", fallback=MemoryLimiter(), prefix=prefix)
    assert [await limiter.charge("a", 2) is None for _ in range(3)] == [True, True, False]
    await limiter.close()


def test_a_share_ends_after_ten_seconds() -> None:
    """Spent any later it would be in a window that it no longer counts in."""
    clock = Clock()
    shares = Shares(clock)
    shares.taken("a", 10)
    assert shares.spend("a")
    clock.now += LIFETIME_SECONDS
    assert not shares.spend("a")


def test_only_who_is_busy_gets_a_share() -> None:
    """The first request in a while takes itself alone."""
    clock = Clock()
    shares = Shares(clock)
    assert shares.wanted("a", HIGH) == 1
    shares.taken("a", 1)
    assert shares.wanted("a", LOW) == 1
    assert shares.wanted("a", HIGH) == MAX_SHARE
    assert shares.wanted("a", HIGH) == 1, "one takes a share, and the others wait for none"
    shares.taken("a", 1)
    assert shares.wanted("a", HIGH) == 1, "what another took for itself doesn't end it"
    shares.given_up("a")
    assert shares.wanted("a", HIGH) == MAX_SHARE
    clock.now += 3 * LIFETIME_SECONDS
    assert shares.wanted("a", HIGH) == 1
