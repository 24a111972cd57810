"""Back-off in a Redis that all replicas share: the rule of back_off.py as a script, by Redis' clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Unpack

from redis.asyncio import Redis, RedisCluster

from artstore_grpc.ephemeral.back_off import (
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    MEMORY_SECONDS,
    WINDOW_SECONDS,
    MemoryBackOff,
)
from artstore_grpc.ephemeral.shared import Lost, Options, SharedScript

PEEK, ATTEMPT, FORGIVE = 0, 1, 2

SCRIPT = f"""
-- KEYS[1]: a hash of count, wait, until and window_ends, in microseconds; it expires when it is to be forgotten.
-- ARGV: 0 to peek, 1 for an attempt, 2 to forgive; how many are free; for tests, the time in microseconds.
-- Returns in how many microseconds the key may go on, 0: now.
local key, what, free = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
if what == {FORGIVE} then
  redis.call('DEL', key)
  return 0
end
local now = tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local held = redis.call('HMGET', key, 'count', 'wait', 'until', 'window_ends', 'forget_at')
local count, wait, till = tonumber(held[1] or 0), tonumber(held[2] or 0), tonumber(held[3] or 0)
local window_ends, forget_at = tonumber(held[4] or 0), tonumber(held[5] or 0)
-- A clock that was set back must not lock a key for longer than its wait.
if till > now + wait then till = now + wait end
if now < till then return till - now end
if what == {PEEK} then return 0 end

if now >= forget_at or forget_at > now + {MEMORY_SECONDS * 1e6:.0f} then
  count, wait, window_ends = 0, 0, now + {WINDOW_SECONDS * 1e6:.0f}
end
count = count + 1
if wait > 0 or count >= free then
  wait = math.min(math.max(2 * wait, {FIRST_WAIT_SECONDS * 1e6:.0f}), {LONGEST_WAIT_SECONDS * 1e6:.0f})
  till = now + wait
  forget_at = till + wait + {WINDOW_SECONDS * 1e6:.0f}
else
  till, forget_at = 0, window_ends
end
redis.call('HSET', key, 'count', count, 'wait', string.format('%.0f', wait), 'until', string.format('%.0f', till),
  'window_ends', string.format('%.0f', window_ends), 'forget_at', string.format('%.0f', forget_at))
redis.call('PEXPIRE', key, math.ceil((forget_at - now) / 1000))
return 0
"""


class RedisBackOff:
    """Implements `BackOff` for all processes that name the same Redis. Fails closed, to `fallback`, and never raises.

    What Redis admits is counted in `fallback` too, so that the count goes on when Redis fails. After its return both
    must admit, for as long as anything may be remembered: Redis doesn't know what was counted without it.

    The Redis must not evict keys. server, options: as for `SharedScript`.
    """

    def __init__(
        self, server: str | Redis | RedisCluster, *, fallback: MemoryBackOff, **options: Unpack[Options]
    ) -> None:
        options.setdefault("prefix", "artstore:failure:")
        self._redis = SharedScript(server, SCRIPT, what="failures", doubt=timedelta(seconds=MEMORY_SECONDS), **options)
        self._fallback = fallback

    @property
    def available(self) -> bool:
        """Whether Redis answered when it was last asked; while it is False, failures count for this process alone."""
        return self._redis.available

    async def attempt(self, key: str, free: int) -> timedelta | None:
        """As `BackOff.attempt`. Takes at most `timeout`."""
        wait = await self._asked(key, ATTEMPT, free)
        if wait is None:
            return await self._fallback.attempt(key, free)
        if wait:
            return wait
        # Its answer counts only where Redis may not know all.
        again = await self._fallback.attempt(key, free)
        return again if self._redis.doubted else None

    async def peek(self, key: str) -> timedelta | None:
        """As `BackOff.peek`. Takes at most `timeout`."""
        wait = await self._asked(key, PEEK, 0)
        if wait is None or (not wait and self._redis.doubted):
            return await self._fallback.peek(key)
        return wait or None

    async def forgive(self, key: str) -> None:
        """As `BackOff.forgive`. Takes at most `timeout`."""
        await self._fallback.forgive(key)
        await self._asked(key, FORGIVE, 0)

    async def close(self) -> None:
        """Closes the connections, unless they are a client's that was given."""
        await self._redis.close()

    async def _asked(self, key: str, what: int, free: int) -> timedelta | None:
        """How long Redis has the key wait; None where Redis doesn't answer."""
        if not self._redis.may_ask():
            return None
        try:
            return timedelta(microseconds=await self._redis.ask(key, what, free))
        except Lost:
            return None
