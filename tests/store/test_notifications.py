"""PostgreSQL tells who listens of every commit with ledger rows, and of nothing else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.records import SYSTEM, Event, EventKind
from artstore_grpc.store import notifications
from artstore_grpc.store.notifications import listen
from artstore_grpc.store.sql import SqlStore

SECONDS = 10.0


class Ears:
    """Counts what is heard."""

    def __init__(self) -> None:
        self.heard = 0
        self._anything = asyncio.Event()

    def __call__(self) -> None:
        self.heard += 1
        self._anything.set()

    async def something(self) -> None:
        async with asyncio.timeout(SECONDS):
            await self._anything.wait()
        self._anything.clear()


@contextlib.asynccontextmanager
async def listening(url: str) -> AsyncIterator[tuple[Ears, asyncio.Task[None]]]:
    ears = Ears()
    task = asyncio.create_task(listen(url, ears))
    await ears.something()  # it says so once it listens
    yield ears, task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, StoreUnavailable):
        await task


async def record(store: SqlStore) -> None:
    async with store.unit() as unit:
        unit.record(Event(datetime.now(UTC), SYSTEM, EventKind.ACCOUNT_UPDATED, "somebody", {}))


async def test_a_commit_is_heard(postgres_url: str) -> None:
    """Once, whatever it wrote; one that rolls back, and one without ledger rows, is not."""
    store = SqlStore(postgres_url)
    async with listening(postgres_url) as (ears, _):
        await record(store)
        await ears.something()
        with contextlib.suppress(RuntimeError):
            async with store.unit() as unit:
                unit.record(Event(datetime.now(UTC), SYSTEM, EventKind.ACCOUNT_UPDATED, "somebody", {}))
                raise RuntimeError("rolls back")
        async with store.unit():
            pass
        await record(store)
        await ears.something()
        assert ears.heard == 3
    await store.close()


async def test_a_broken_connection_is_noticed(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends, so that whoever runs it connects anew; meanwhile there is the poll."""
    monkeypatch.setattr(notifications, "CHECK_INTERVAL", notifications.CHECK_INTERVAL / 100)
    async with listening(postgres_url) as (_, task):
        connection: Any = await asyncpg.connect(postgres_url)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()
        with pytest.raises(StoreUnavailable):
            async with asyncio.timeout(SECONDS):
                await asyncio.shield(task)


async def test_a_database_that_is_down(tmp_path: Any) -> None:
    """Is StoreUnavailable, as everywhere."""
    with pytest.raises(StoreUnavailable):
        await listen(f"postgresql://nobody@/none?host={tmp_path}", Ears())


async def test_nothing_is_heard_on_sqlite(sqlite_url: str) -> None:
    """Returns at once: a file tells nobody, its processes poll."""
    await listen(sqlite_url, Ears())
