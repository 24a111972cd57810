"""Fixtures of the fault suite: servers of each test's own, and a service on them as operators run it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from artstore_grpc.store.schema import upgrade
from tests.faults.proxy import Proxy
from tests.processes.service import Installation, install
from tests.servers import Postgres, Redis

OWNER = "service"
DATABASE = "identity"

Sql = Callable[..., None]
"""Runs statements as the server's superuser, whom no limit holds back."""


@pytest.fixture
def database() -> Iterator[Postgres]:
    """A PostgreSQL of this test's own, as durable as one in production."""
    with Postgres(fsync=True) as server:
        yield server


@pytest.fixture
def sql(database: Postgres) -> Sql:
    async def run(statements: tuple[str, ...]) -> None:
        connection = await asyncpg.connect(database.url())
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    return lambda *statements: asyncio.run(run(statements))


@pytest.fixture
def proxy(database: Postgres) -> Iterator[Proxy]:
    """What stands between the service and its PostgreSQL."""
    with Proxy(database.folder / ".s.PGSQL.5432") as made:
        yield made


@pytest.fixture
def installation(database: Postgres, sql: Sql, proxy: Proxy) -> Installation:
    """A bootstrapped installation, which reaches its database as an ordinary role, through the proxy."""
    sql(f"CREATE ROLE {OWNER} LOGIN", f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
    url = f"postgresql://{OWNER}@127.0.0.1:{proxy.port}/{DATABASE}"
    asyncio.run(upgrade(url))
    return install(url)


@pytest.fixture
def on_sqlite(sqlite_url: str) -> Installation:
    """A bootstrapped installation on one SQLite file."""
    return install(sqlite_url)


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis of this test's own."""
    with Redis() as server:
        yield server


@pytest.fixture
def redis_proxy(redis: Redis) -> Iterator[Proxy]:
    """What stands between the service and its Redis."""
    with Proxy(Path(redis.socket)) as made:
        yield made


@pytest.fixture
def on_postgres(postgres_url: str) -> Installation:
    """A bootstrapped installation on a PostgreSQL that tests share."""
    return install(postgres_url)
