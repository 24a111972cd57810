"""Tells the processes of an installation by Redis' publish and subscribe that the ledger has grown.

Only a wake-up: what has changed is read from the ledger. Lost ones cost a poll's interval and nothing else, so that
everything here may fail, and does so silently but for one log line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from artstore_grpc.ephemeral.client import close

CHANNEL = "artstore:ledger"
TIMEOUT = timedelta(milliseconds=100)
"""For one announcement: the write that it is about waits for it."""
COOL_DOWN = timedelta(seconds=1)
"""How long a Redis that failed is left alone, and how soon its return is noticed."""
CHECK_INTERVAL = timedelta(seconds=10)
"""How often a silent subscription is asked whether it still lives."""


class RedisAnnouncements:
    """Announces to and hears from every process that names the same Redis. Fails open: the poll is there."""

    def __init__(self, url: str, logger: FilteringBoundLogger) -> None:
        self._client = Redis.from_url(url, protocol=3, retry=Retry(NoBackoff(), 0), socket_timeout=None)
        self._logger = logger
        self._quiet_until = 0.0

    async def announce(self) -> None:
        """Wakes the others. Never raises, and takes at most TIMEOUT."""
        if asyncio.get_running_loop().time() < self._quiet_until:
            return
        try:
            async with asyncio.timeout(TIMEOUT.total_seconds()):
                await self._client.publish(CHANNEL, b"")
        except (RedisError, OSError) as error:  # the TimeoutError of asyncio is an OSError
            self._quiet_until = asyncio.get_running_loop().time() + COOL_DOWN.total_seconds()
            self._logger.warning("changes are not announced", error=type(error).__name__)

    async def listen(self, on_announcement: Callable[[], None]) -> None:
        """Calls `on_announcement` whenever somebody announces; connects anew until it is cancelled."""
        while True:
            try:
                await self._follow(on_announcement)
            except (RedisError, OSError):
                await asyncio.sleep(COOL_DOWN.total_seconds())

    async def _follow(self, on_announcement: Callable[[], None]) -> None:
        async with self._client.pubsub() as subscription:
            await subscription.subscribe(CHANNEL)
            on_announcement()  # for what was announced before it listened
            while True:
                heard = await subscription.get_message(timeout=CHECK_INTERVAL.total_seconds())
                if heard is None:
                    await subscription.ping()
                elif heard["type"] == "message":
                    on_announcement()

    async def close(self) -> None:
        """Closes every connection."""
        await close(self._client)
