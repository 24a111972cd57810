"""Counts requests in a Redis that all replicas share, so that together they keep one limit.

Decides what is asked of Redis and what counts without it; the counting itself is a script that runs in Redis, by Redis'
clock.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Unpack

from redis.asyncio import Redis, RedisCluster

from artstore_grpc.ephemeral.memory import BUCKETS, MemoryLimiter
from artstore_grpc.ephemeral.shared import Lost, Options, SharedScript
from artstore_grpc.ephemeral.shares import Shares

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

    fallback: undivided, since it must not refuse what Redis admits. server, options: as for `SharedScript`.
    """

    def __init__(
        self, server: str | Redis | RedisCluster, *, fallback: MemoryLimiter, **options: Unpack[Options]
    ) -> None:
        options.setdefault("prefix", "artstore:limit:")
        self._redis = SharedScript(server, WINDOW_SCRIPT, what="limits", doubt=timedelta(seconds=BUCKETS), **options)
        self._fallback = fallback
        self._shares = Shares()

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked; while it is False, limits hold for this process alone."""
        return self._redis.available

    async def charge(self, key: str, limit: int) -> timedelta | None:
        """As `Limiter.charge`. Takes at most `timeout`, and no time at all while a share lasts."""
        if self._shares.spend(key):
            await self._fallback.charge(key, limit)
            return None
        if not self._redis.may_ask():
            return await self._fallback.charge(key, limit)
        cost = self._shares.wanted(key, limit)
        try:
            return await self._ask_both(key, limit, cost)
        except Lost:
            self._shares.clear()
            return await self._fallback.charge(key, limit)
        finally:
            if cost > 1:
                self._shares.given_up(key)

    async def peek(self, key: str, limit: int) -> timedelta | None:
        """As `Limiter.peek`. Takes at most `timeout`."""
        try:
            return await (self._ask_both(key, limit, 0) if self._redis.may_ask() else self._fallback.peek(key, limit))
        except Lost:
            self._shares.clear()
            return await self._fallback.peek(key, limit)

    async def close(self) -> None:
        """Closes the connections, unless they are a client's that was given."""
        await self._redis.close()

    async def _ask_both(self, key: str, limit: int, cost: int) -> timedelta | None:
        if self._redis.doubted and (wait := await self._fallback.peek(key, limit)):
            return wait
        answer = await self._redis.ask(key, limit, cost)
        if answer > 0:
            return timedelta(microseconds=answer)
        if cost:
            self._shares.taken(key, -answer)
            # Its answer doesn't matter: its seconds begin elsewhere than Redis', so that it may forget a moment later.
            await self._fallback.charge(key, limit)
        return None
