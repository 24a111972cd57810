"""URLs, connections and their loss."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import make_url

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.ledger import verify
from artstore_grpc.store.engine import normalised
from artstore_grpc.store.schema import check, upgrade
from artstore_grpc.store.sql import SqlStore
from tests.servers import Postgres
from tests.store.samples import account, event


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server that a test may stop and kill, with fsync as in production."""
    with Postgres(fsync=True) as server:
        yield server


@contextmanager
def frozen(server: Postgres) -> Iterator[None]:
    """The server and its own children, stopped in their tracks."""
    assert server.process
    parent = psutil.Process(server.process.pid)
    processes = [parent, *parent.children()]
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a child that had ended meanwhile, an autovacuum worker say
            process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:///x.db", "sqlite+aiosqlite"),
        ("sqlite+aiosqlite:////x.db", "sqlite+aiosqlite"),
        ("postgres://u:p@h/d", "postgresql+asyncpg"),
        ("postgresql://u:p@h:1/d?sslmode=require", "postgresql+asyncpg"),
        ("postgresql+asyncpg://u@/d?host=/run/postgresql", "postgresql+asyncpg"),
    ],
)
def test_known_urls(url: str, driver: str) -> None:
    """SQLite files and PostgreSQL are known by every usual name."""
    assert normalised(url).drivername == driver


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "mysql://u:hunter2@h/d", "postgresql+psycopg2://u:hunter2@h/d", "sqlite://", "sqlite:///:memory:"],
)
def test_unknown_urls_are_refused_without_their_password(url: str) -> None:
    """Any other URL is refused in a sentence that does not repeat it."""
    with pytest.raises(ValueError, match="the database's URL must") as refused:
        SqlStore(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("url", ["sqlite:////nowhere/x.db", "postgresql://u@127.0.0.1:1/d"])
async def test_making_a_store_does_not_connect(url: str) -> None:
    """A store is made and closed without its database; using it says StoreUnavailable."""
    store = SqlStore(url)
    assert store.dialect == url.split(":")[0]
    for use in (store.ping, store.head):
        with pytest.raises(StoreUnavailable):
            await use()
    with pytest.raises(StoreUnavailable):
        await check(url)
    await store.close()


async def test_unknown_database_is_unavailable(postgres: Postgres) -> None:
    """What the server refuses while connecting is an unavailable store."""
    store = SqlStore(postgres.url("no_such_database"))
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.close()


async def test_driver_may_be_named(store_url: str) -> None:
    """A store opens by the plain URL and by the one that names the driver."""
    named = make_url(store_url).set(drivername=normalised(store_url).drivername)
    store = SqlStore(named.render_as_string(hide_password=False))
    await store.ping()
    await store.close()


async def test_sqlite_is_set_up(sqlite_url: str) -> None:
    """Each connection has what the module promises: WAL, synchronous=FULL, foreign keys, a busy timeout."""
    store = SqlStore(sqlite_url, command_timeout=timedelta(seconds=3))
    async with store._database._engine.connect() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = [(await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar() for pragma in pragmas]
    assert found == ["wal", 2, 1, 3000]
    await store.close()


async def test_damaged_file_is_unavailable(tmp_path: Path) -> None:
    """A file that is no database is an unavailable store."""
    (tmp_path / "x.db").write_bytes(b"not a database" * 1000)
    store = SqlStore(f"sqlite:///{tmp_path / 'x.db'}")
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_outage_is_told_and_heals(own_postgres: Postgres, end: str) -> None:
    """With PostgreSQL gone reads and units say StoreUnavailable at once; when it is back the first call succeeds, and
    all that was acknowledged is there."""
    await upgrade(own_postgres.url())
    store = SqlStore(own_postgres.url(), pool_size=4)
    one = account()

    async def write() -> None:
        async with store.unit() as unit:
            await unit.add_account(account())
            unit.record(event())

    async with store.unit() as unit:
        await unit.add_account(one)
        unit.record(event())
    getattr(own_postgres, end)()
    started = time.monotonic()
    for _ in range(6):
        with pytest.raises(StoreUnavailable):
            await store.account(one.id)
        with pytest.raises(StoreUnavailable):
            await write()
    assert time.monotonic() - started < 10
    own_postgres.start()
    assert await store.account(one.id) == one
    await write()
    assert verify(await store.ledger(0, 10)) == await store.head()
    await store.close()


@pytest.mark.slow
async def test_restart_between_calls_is_not_noticed(own_postgres: Postgres) -> None:
    """A restart closes pooled connections; the next unit and the next read connect anew instead of failing."""
    await upgrade(own_postgres.url())
    store = SqlStore(own_postgres.url(), pool_size=2)
    await store.ping()
    await asyncio.to_thread(own_postgres.restart)
    async with store.unit() as unit:
        unit.record(event())
    await asyncio.to_thread(own_postgres.restart)
    assert (await store.head())[0] == 1
    await store.close()


@pytest.mark.slow
async def test_outage_in_the_middle_of_a_unit(own_postgres: Postgres) -> None:
    """A server that dies under a unit makes it StoreUnavailable, and nothing of it is kept."""
    await upgrade(own_postgres.url())
    store = SqlStore(own_postgres.url(), pool_size=1)

    async def work() -> None:
        async with store.unit() as unit:
            await unit.add_account(account())
            unit.record(event())
            own_postgres.kill()

    with pytest.raises(StoreUnavailable):
        await work()
    own_postgres.start()
    assert (await store.head())[0] == 0
    await store.close()


@pytest.mark.slow
async def test_frozen_server_times_out(own_postgres: Postgres) -> None:
    """A server that accepts and never answers is StoreUnavailable within the timeouts, and heals when it goes on."""
    await upgrade(own_postgres.url())
    short = timedelta(seconds=0.5)
    store = SqlStore(own_postgres.url(), pool_size=1, connect_timeout=short, command_timeout=short)
    await store.ping()
    with frozen(own_postgres):
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.ping()
            assert time.monotonic() - started < 10
    await store.ping()
    await store.close()
