"""Where this process can be called, told to clients through a Redis that they can read.

One hash with a field for each instance: so that it is one key, and one slot of a cluster, and is read whole without a
SCAN. Redis deletes no single field by itself on the versions that we support, so that each entry says when it was
written and how long it holds, both judged by Redis' clock alone: a replica whose own clock is off neither lives longer
nor dies sooner. docs/discovery.md is the format's contract, and `artstore.identity.redis_replicas` its reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from artstore_grpc.ephemeral.client import client_of, close, drop_idle

KEY = "artstore:replicas"

TTL = timedelta(seconds=5)
"""How long an entry holds after it was written: a replica that died without a word is gone by then."""

HEARTBEAT = timedelta(seconds=1.5)
"""How often it is written: two may be lost, and the third one late by half a second."""

TIMEOUT = timedelta(seconds=1)
"""For one write, connecting included; with HEARTBEAT, how soon Redis' return is noticed."""

REMOVAL_TIMEOUT = timedelta(milliseconds=500)
"""A stop waits for no more: where Redis is away the entry dies by itself."""

WRITE = """
-- KEYS[1]: the hash. ARGV: the instance; for how many milliseconds its entry holds; the entry, as JSON.
-- A value is the time of its writing in microseconds, that number of milliseconds, and the JSON, with spaces between.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local held = redis.call('HGETALL', KEYS[1])
for i = 1, #held, 2 do
  local written, ttl, entry = string.match(held[i + 1], '^(%d+) (%d+) (.*)$')
  if not written or now - written > ttl * 1000 then
    redis.call('HDEL', KEYS[1], held[i])
  elseif tonumber(written) > now then
    -- Redis' clock was set back, or another server took over: the dead must not live until the old time is reached.
    redis.call('HSET', KEYS[1], held[i], string.format('%.0f %s %s', now, ttl, entry))
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s %s', now, ARGV[2], ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""O(replicas), and it removes the dead, so that nothing is left of a fleet that changes for years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is told of a process. `started` is by its own clock, and for people only."""

    address: str
    """`host:port` of its gRPC, as clients reach it; several instances may have one address."""
    version: str
    started: datetime


class Registration:
    """One process' entry. Fails open: without Redis nothing but the entry is missing."""

    def __init__(
        self,
        server: str | Redis | RedisCluster,
        *,
        instance: str,
        entry: Entry,
        ready: Callable[[], bool],
        logger: FilteringBoundLogger,
        key: str = KEY,
    ) -> None:
        """server: a URL, or a client whose maker closes it. instance: unique among all processes; written again under
        it, the entry is replaced. ready: whether the process should be sent calls."""
        self._owned = isinstance(server, str)
        self._client = client_of(server) if isinstance(server, str) else server
        self._write = self._client.register_script(WRITE)
        self._instance = instance
        self._entry = entry
        self._ready = ready
        self._logger = logger
        self._key = key
        self._changed = asyncio.Event()
        self._registered: bool | None = None

    async def keep(self) -> None:
        """Writes the entry again and again, at once after `tell`, until cancelled. Raises nothing."""
        while True:
            self._changed.clear()
            await self._try_to_write()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT.total_seconds()):
                    await self._changed.wait()

    def tell(self) -> None:
        """Readiness has changed, which clients should know now."""
        self._changed.set()

    async def remove(self) -> None:
        """Takes the entry away, once `keep` has ended. Never raises, and takes at most REMOVAL_TIMEOUT."""
        with contextlib.suppress(RedisError, OSError):  # the TimeoutError of asyncio is an OSError
            async with asyncio.timeout(REMOVAL_TIMEOUT.total_seconds()):
                await self._client.hdel(self._key, self._instance)

    async def close(self) -> None:
        """Closes the connections, unless they are a client's that was given."""
        if self._owned:
            await close(self._client)

    async def _try_to_write(self) -> None:
        said = asdict(self._entry) | {"started": self._entry.started.isoformat(), "ready": self._ready()}
        milliseconds = round(TTL.total_seconds() * 1000)
        try:
            async with asyncio.timeout(TIMEOUT.total_seconds()):
                if self._registered is False:
                    await drop_idle(self._client)
                await self._write([self._key], [self._instance, milliseconds, json.dumps(said)])
        except (RedisError, OSError) as error:  # the TimeoutError of asyncio is an OSError
            if self._registered is not False:
                # The type only: a message may hold the URL, and that a password.
                self._logger.warning("not registered", error=type(error).__name__)
            self._registered = False
            return
        if not self._registered:
            self._logger.info("registered", address=self._entry.address, instance=self._instance)
        self._registered = True
