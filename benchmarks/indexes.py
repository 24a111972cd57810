"""`python -m benchmarks.indexes`: how long a migration that makes an index on a million ledger rows holds up changes.

The ledger is filled as `seed.py` does, on SQLite and on a PostgreSQL of its own, which forces to disk what it commits.
Each of the ledger's indexes is then dropped, and made again in a transaction of its own, as `db upgrade` makes one; on
PostgreSQL also CONCURRENTLY, which no transaction can (ADR 0027).
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from artstore_grpc.store.engine import make_engine
from artstore_grpc.store.schema import CONNECT_TIMEOUT, upgrade
from artstore_grpc.vault import new_key
from benchmarks.seed import Plan, seed
from tests.servers import Postgres

LEDGER_ROWS = 1_000_000
ROUNDS = 5
COLUMNS = ("kind", "subject", "actor")
"""Each has an index, with the sequence (store/tables.py)."""


async def filled(url: str) -> AsyncEngine:
    """An engine on a new database with the present schema and that many ledger rows."""
    await upgrade(url)
    await seed(url, new_key(), Plan(0, 0, ledger_rows=LEDGER_ROWS))
    return make_engine(url, pool_size=1, connect_timeout=CONNECT_TIMEOUT, command_timeout=None)


async def seconds_to_make(engine: AsyncEngine, column: str, how: str = "") -> float:
    """From the first word to the commit; the index that was there is dropped first, and that isn't counted."""
    name = f"ix_ledger_{column}_sequence"
    async with engine.begin() as connection:
        await connection.execute(text(f"DROP INDEX {name}"))
    began = time.perf_counter()
    async with engine.connect() as connection:
        if how:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(f"CREATE INDEX {how} {name} ON ledger ({column}, sequence)"))
        await connection.commit()
    return time.perf_counter() - began


def told(name: str, seconds: Sequence[float]) -> str:
    return f"{name}: {statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"


async def measured(store: str, url: str, *ways: str) -> None:
    """Prints a line for each index and each way of making it, which take turns."""
    engine = await filled(url)
    try:
        for column in COLUMNS:
            taken: dict[str, list[float]] = {how: [] for how in ways}
            for _ in range(ROUNDS):
                for how in ways:
                    taken[how].append(await seconds_to_make(engine, column, how))
            for how in ways:
                print(told(f"{store}, {' '.join(filter(None, (column, how)))}", taken[how]), flush=True)
    finally:
        await engine.dispose()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="artstore-indexes-") as folder:
        asyncio.run(measured("SQLite", f"sqlite:///{Path(folder) / 'ledger.db'}", ""))
    with Postgres(fsync=True) as postgres:
        asyncio.run(measured("PostgreSQL", postgres.url(), "", "CONCURRENTLY"))


if __name__ == "__main__":
    main()
