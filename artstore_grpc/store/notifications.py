"""Hears of commits to the ledger by PostgreSQL's LISTEN, on a connection of its own.

It wants a direct connection: behind a pooler that hands sessions around (PgBouncer in transaction mode) nothing is ever
heard, and replicas learn by their poll alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import asyncpg

from artstore_grpc.store.engine import POSTGRESQL, names, normalised
from artstore_grpc.store.faults import translated
from artstore_grpc.store.unit import CHANNEL

CONNECT_TIMEOUT = timedelta(seconds=2)
CHECK_INTERVAL = timedelta(seconds=10)
"""How often the connection is asked whether it still lives: a broken one is silent, as one without news is."""


async def listen(url: str, on_commit: Callable[[], None]) -> None:
    """Calls `on_commit` for every commit with ledger rows, until the connection breaks. Raises StoreUnavailable then.
    On SQLite nothing ever comes: it returns at once."""
    parsed = normalised(url)
    if not parsed.drivername.startswith(POSTGRESQL):
        return
    address = parsed.set(drivername=POSTGRESQL).render_as_string(hide_password=False)
    with translated():
        connection = await asyncpg.connect(
            address, timeout=CONNECT_TIMEOUT.total_seconds(), server_settings=names(parsed)
        )
    try:
        await _follow(connection, on_commit)
    finally:
        connection.terminate()


async def _follow(connection: Any, on_commit: Callable[[], None]) -> None:
    broken = asyncio.Event()
    connection.add_termination_listener(lambda _: broken.set())
    with translated():
        await connection.add_listener(CHANNEL, lambda *_: on_commit())
        on_commit()  # for what was committed before it listened
        while True:
            try:
                async with asyncio.timeout(CHECK_INTERVAL.total_seconds()):
                    await broken.wait()
            except TimeoutError:
                pass
            await connection.execute("SELECT 1", timeout=CONNECT_TIMEOUT.total_seconds())
