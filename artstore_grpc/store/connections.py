"""The connections of a pool as they are used, and how long whoever wants one waits for it.

Read from any thread: the pool's own numbers, each of which is one step.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from artstore_grpc.counters import WAIT_BUCKETS, Distribution

T = TypeVar("T")


class Connections:
    """Those of an engine, which has a queue for a pool whatever its dialect."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.waits = Distribution(WAIT_BUCKETS)
        """Seconds from asking until a connection was there, or wasn't to be had."""
        pool = engine.sync_engine.pool
        assert isinstance(pool, AsyncAdaptedQueuePool)
        self._pool = pool
        pool.checkedin()  # makes the pool's queue now: two threads that find none could each make one

    @property
    def size(self) -> int:
        """How many there may be."""
        return self._pool.size()

    @property
    def in_use(self) -> int:
        """Those that somebody has, or that are being made for somebody."""
        return self._pool.checkedout()

    @property
    def idle(self) -> int:
        return self._pool.checkedin()

    async def waited(self, start: Awaitable[T]) -> T:
        """Starts a connection, that is, takes it out of the pool; what that takes is counted however it ends."""
        began = time.perf_counter()
        try:
            return await start
        finally:
            self.waits.observe(time.perf_counter() - began)

    def taken(self, connection: AsyncConnection) -> Taken:
        """As `async with connection`, counted."""
        return Taken(self, connection)


class Taken:
    """A connection that is taken out of the pool, and goes back at the end."""

    __slots__ = ("_connection", "_connections")

    def __init__(self, connections: Connections, connection: AsyncConnection) -> None:
        self._connections = connections
        self._connection = connection

    async def __aenter__(self) -> AsyncConnection:
        return await self._connections.waited(self._connection.__aenter__())

    async def __aexit__(self, *raised: object) -> None:
        await self._connection.__aexit__(*raised)
