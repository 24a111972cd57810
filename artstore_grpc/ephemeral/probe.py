"""Whether Redis answers, asked now and then whether or not anybody has use for it. Only for the metrics: what does
without Redis, and when, is shared.py's."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from redis.exceptions import RedisError

from artstore_grpc.ephemeral.client import client_of, close, drop_idle

INTERVAL = timedelta(seconds=5)
TIMEOUT = timedelta(seconds=1)


class RedisProbe:
    """Asks over a connection of its own. `up`: whether the last one was answered in time; None until then."""

    def __init__(self, url: str) -> None:
        self.up: bool | None = None
        self._client = client_of(url)

    async def run(self) -> None:
        """Asks once. Takes little more than TIMEOUT at most, and never raises."""
        try:
            async with asyncio.timeout(TIMEOUT.total_seconds()):
                await self._client.ping()
            self.up = True
        except (RedisError, OSError):  # the TimeoutError of asyncio is an OSError
            self.up = False
            await drop_idle(self._client)

    async def close(self) -> None:
        """Closes the connection."""
        await close(self._client)
