"""Counts requests in a Redis that all replicas share, so that together they keep one limit.

Decides when Redis is asked and when this process counts alone; the counting itself is a script that runs in Redis, by
Redis' clock. Plain EVALSHA with one key a call: Valkey, Redis 7 and later, and their clusters run it alike.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from artstore_grpc.ephemeral.memory import BUCKETS, MemoryLimiter
from artstore_grpc.ephemeral.shares import Shares

TIMEOUT = timedelta(milliseconds=100)
"""A thousand times a round trip: what takes longer is not coming, and callers wait for it."""

COOL_DOWN = timedelta(milliseconds=500)
"""With `TIMEOUT` one call in each of these is late while Redis is silent; and how soon its return is noticed."""

CONNECTIONS = 32
"""Calls at a time, each on a connection of its own; the others wait, within their timeout. More bring no more."""

WINDOW_SCRIPT = """
-- KEYS[1]: a hash of total, oldest and newest (bucket), and a count for each second that has one.
-- ARGV: the limit; how many to charge, or 0 to peek; for tests, the time in microseconds.
-- Returns, if at least one is admitted, how many were charged, as a negative number or 0; else in how many microseconds
-- one will be.
local key, limit = KEYS[1], tonumber(ARGV[1])
local now = tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local second = math.floor(now / 1000000)
local held = redis.call('HMGET', key, 'total', 'oldest', 'newest')
local total, oldest, newest = tonumber(held[1] or 0), tonumber(held[2] or second), tonumber(held[3] or second)

-- A clock set back must neither open the limit nor lock it until the old time is reached again. Within a window the
-- newest bucket goes on; from further ahead, all that was counted counts as of now.
if newest > second + 60 then
  redis.call('DEL', key)
  redis.call('HSET', key, 'total', total, 'oldest', second, 'newest', second, second, total)
  redis.call('EXPIRE', key, 62)
  oldest, newest = second, second
end
local bucket = math.max(second, newest)

local first = bucket - 60
if newest < first then
  redis.call('DEL', key)
  total, oldest, newest = 0, bucket, 0
elseif oldest < first then
  local seconds, gone = {}, {}
  for s = oldest, newest do seconds[#seconds + 1] = s end
  for i, count in ipairs(redis.call('HMGET', key, unpack(seconds))) do
    if count then
      oldest = seconds[i]
      if oldest >= first then break end
      total = total - count
      gone[#gone + 1] = oldest
    end
  end
  redis.call('HDEL', key, unpack(gone))
  redis.call('HSET', key, 'total', total, 'oldest', oldest)
end

if total < limit then
  local count = math.min(tonumber(ARGV[2]), limit - total)
  if count > 0 then
    redis.call('HINCRBY', key, bucket, count)
    redis.call('HSET', key, 'total', total + count, 'oldest', oldest, 'newest', bucket)
    if bucket ~= newest or total == 0 then redis.call('EXPIRE', key, bucket - second + 62) end
  end
  return -count
end
for s = oldest, bucket do
  oldest = s
  total = total - (redis.call('HGET', key, s) or 0)
  if total < limit then break end
end
return (oldest + 61) * 1000000 - now
"""
"""Amortised O(1): a bucket is read once when it expires, and a refusal reads one unless the limit was lowered."""


class RedisLimiter:
    """Implements `Limiter` for all processes that name the same Redis. Fails closed, to `fallback`, and never raises.

    A busy caller with a high limit is charged for several requests at once, which then cost no round trip: `shares`.

    What Redis admits here is counted in `fallback` too, so that the count goes on when Redis fails. After a failure
    Redis is left alone for `cool_down`; then one call tries it while the others still count here. For a window after
    its return both must admit: Redis doesn't know what was admitted without it, and may have lost the rest.

    The Redis must not evict keys: `maxmemory-policy noeviction`, or a volatile one with memory to spare.

    server: a URL (`redis:`, `rediss:`, `unix:`) or a client, whose maker closes it and gives it no retries and a socket
    timeout no longer than `timeout`.
    fallback: undivided, since it must not refuse what Redis admits. timeout: for one call, connecting included.
    clock: seconds since any epoch; only for tests, as replicas can share no clock but the server's.
    """

    def __init__(
        self,
        server: str | Redis | RedisCluster,
        *,
        fallback: MemoryLimiter,
        prefix: str = "artstore:limit:",
        timeout: timedelta = TIMEOUT,
        cool_down: timedelta = COOL_DOWN,
        clock: Callable[[], float] | None = None,
        logger: FilteringBoundLogger | None = None,
    ) -> None:
        self._owned = isinstance(server, str)
        self._client = client_of(server) if isinstance(server, str) else server
        self._script = self._client.register_script(WINDOW_SCRIPT)
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._fallback = fallback
        self._prefix = prefix
        self._timeout = timeout.total_seconds()
        self._cool_down = cool_down.total_seconds()
        self._clock = clock
        self._shares = Shares()
        self._available = True
        self._next_try = 0.0
        self._doubted_until = 0.0
        self._log: FilteringBoundLogger = logger if logger is not None else structlog.get_logger(__name__)

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked; while it is False, limits hold for this process alone."""
        return self._available

    async def charge(self, key: str, limit: int) -> timedelta | None:
        """As `Limiter.charge`. Takes at most `timeout`, and no time at all while a share lasts."""
        if self._shares.spend(key):
            await self._fallback.charge(key, limit)
            return None
        if not self._may_ask():
            return await self._fallback.charge(key, limit)
        cost = self._shares.wanted(key, limit)
        try:
            return await self._ask_both(key, limit, cost)
        except (RedisError, OSError) as error:  # the TimeoutError of asyncio is an OSError
            self._lost(error)
            return await self._fallback.charge(key, limit)
        finally:
            if cost > 1:
                self._shares.given_up(key)

    async def peek(self, key: str, limit: int) -> timedelta | None:
        """As `Limiter.peek`. Takes at most `timeout`."""
        try:
            return await self._ask_both(key, limit, 0) if self._may_ask() else await self._fallback.peek(key, limit)
        except (RedisError, OSError) as error:
            self._lost(error)
            return await self._fallback.peek(key, limit)

    async def close(self) -> None:
        """Closes the connections, unless they are a client's that was given."""
        if self._owned:
            await self._client.aclose()

    async def _ask_both(self, key: str, limit: int, cost: int) -> timedelta | None:
        if time.monotonic() < self._doubted_until and (wait := await self._fallback.peek(key, limit)):
            return wait
        answer = await self._ask(key, limit, cost)
        if answer > 0:
            return timedelta(microseconds=answer)
        if cost:
            self._shares.taken(key, -answer)
            # Its answer doesn't matter: its seconds begin elsewhere than Redis', so that it may forget a moment later.
            await self._fallback.charge(key, limit)
        return None

    async def _ask(self, key: str, limit: int, cost: int) -> int:
        now = () if self._clock is None else (round(self._clock() * 1_000_000),)
        async with asyncio.timeout(self._timeout), self._slots:
            if not self._available:
                await self._drop_connections()
            answer = int(await self._script([self._prefix + key], [limit, cost, *now]))
        if not self._available:
            self._found()
        return answer

    async def _drop_connections(self) -> None:
        """Those that were idle when Redis failed are as dead as the one that noticed, and would each fail a call."""
        if isinstance(self._client, Redis):
            await self._client.connection_pool.disconnect(inuse_connections=False)

    def _may_ask(self) -> bool:
        if self._available:
            return True
        now = time.monotonic()
        if now < self._next_try:
            return False
        self._next_try = now + self._cool_down  # this call tries; the others don't wait for what it finds
        return True

    def _lost(self, error: Exception) -> None:
        self._next_try = time.monotonic() + self._cool_down
        self._shares.clear()
        if self._available:
            self._available = False
            # The type only: a message may hold the URL, and that a password.
            self._log.warning("limits fall back to this process", error=type(error).__name__)

    def _found(self) -> None:
        self._available = True
        self._doubted_until = time.monotonic() + BUCKETS
        self._log.info("limits are shared again")


def client_of(url: str) -> Redis:
    """A client of this package's: its calls are bounded by whoever makes them."""
    # No retries: a second attempt takes as long as the first, and there is a fallback. No timeouts but ours: with its
    # own, redis-py calls asyncio.wait_for, which before Python 3.12 can swallow the cancellation that ours is made of.
    return Redis.from_url(
        url,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=None,
        max_connections=2 * CONNECTIONS,
    )
