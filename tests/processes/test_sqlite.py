"""One SQLite file shared by processes: no connection of one may take away what another relies on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from artstore_grpc.store.sql import SqlStore

READS_AND_GOES = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT * FROM ledger_head').fetchall()"


@pytest.mark.slow
async def test_a_further_connection_keeps_the_locks(sqlite_url: str) -> None:
    """After a process opens a second connection, another process that comes and goes doesn't delete the log that the
    first one still writes to: SQLite's locks are the process's, and closing the file once by hand would drop them."""
    store = SqlStore(sqlite_url)
    try:
        async with store.unit():
            await asyncio.gather(store.head(), store.head())  # each on a connection of its own
        path = Path(sqlite_url.removeprefix("sqlite:///"))
        log = path.with_name(f"{path.name}-wal")
        assert log.exists()
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", READS_AND_GOES, str(path))
        assert await process.wait() == 0
        assert log.exists()
    finally:
        await store.close()
