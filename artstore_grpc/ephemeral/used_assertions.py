"""Used client assertions in a Redis that all replicas share, each for as long as it could be valid.

Fails closed: there is no second place to note one in, since an assertion could then be used once in each. A Redis that
loses its data forgets what was used, for which reason an assertion's life is bounded (assertions.py).
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from redis.exceptions import RedisError

from artstore_grpc.ephemeral.client import CONNECTIONS, client_of, close, drop_idle
from artstore_grpc.errors import Unavailable

TIMEOUT = timedelta(milliseconds=500)
"""Longer than the limiters' own: no fallback makes up for giving up."""
RETRY_AFTER = timedelta(seconds=1)
MILLISECOND = timedelta(milliseconds=1)


class RedisUsedAssertions:
    """Implements `UsedAssertions` for all processes that name the same Redis. The Redis must not evict keys."""

    def __init__(self, url: str, *, prefix: str = "artstore:assertion:", timeout: timedelta = TIMEOUT) -> None:
        self._client = client_of(url)
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._prefix = prefix
        self._timeout = timeout.total_seconds()

    async def use(self, key: bytes, expire_time: datetime, now: datetime) -> bool:
        """As `UsedAssertions.use`. Takes little more than `timeout` at most; raises Unavailable."""
        remaining = max(-((now - expire_time) // MILLISECOND), 1)
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                return bool(await self._client.set(self._prefix + key.hex(), 1, px=remaining, nx=True))
        except (RedisError, OSError) as error:  # the TimeoutError of asyncio is an OSError
            await drop_idle(self._client)
            # The type only: a message may hold the URL, and that a password.
            cause = f"used assertions: {type(error).__name__}"
            raise Unavailable(reason="REPLAY_CHECK_UNAVAILABLE", retry_after=RETRY_AFTER, cause=cause) from None

    async def close(self) -> None:
        """Closes the connections."""
        await close(self._client)
