"""Fixtures that every test may use: servers once per worker, a database of its own for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
import redis.asyncio
from sqlalchemy import make_url

from tests.servers import Postgres, Redis

if TYPE_CHECKING:  # imported by the fixtures that need it, so that a test of one part loads no other
    from artstore_grpc.store.sql import SqlStore

TEMPLATE = "artstore_template"
RUN_PASSWORD = uuid4().hex


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for this worker. A test that stops or kills one makes its own."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server_url(request: pytest.FixtureRequest) -> str:
    """A PostgreSQL where databases may be created: the one that the environment names, else this worker's."""
    named = os.environ.get("ARTSTORE_TEST_POSTGRES_URL")
    return named or str(request.getfixturevalue("postgres").url())


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_template(postgres_server_url: str) -> AsyncIterator[str]:
    """The name of a migrated, empty database that others are copied from."""
    from artstore_grpc.store.schema import upgrade

    name = f"{TEMPLATE}_{uuid4().hex[:8]}"
    await execute(postgres_server_url, f"CREATE DATABASE {name}")
    await upgrade(_database(postgres_server_url, name))
    yield name
    await execute(postgres_server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def postgres_empty_url(postgres_server_url: str) -> AsyncIterator[str]:
    """The URL of a database without tables."""
    name = f"artstore_{uuid4().hex[:12]}"
    await execute(postgres_server_url, f"CREATE DATABASE {name}")
    yield _database(postgres_server_url, name)
    await execute(postgres_server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def postgres_url(postgres_server_url: str, postgres_template: str) -> AsyncIterator[str]:
    """The URL of a fresh, migrated database."""
    name = f"artstore_{uuid4().hex[:12]}"
    await execute(postgres_server_url, f"CREATE DATABASE {name} TEMPLATE {postgres_template} STRATEGY file_copy")
    yield _database(postgres_server_url, name)
    await execute(postgres_server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def run_role(postgres_url: str) -> AsyncIterator[str]:
    """A role that has no rights in that database yet, to run the service as; gone at the end."""
    name = f"run_{uuid4().hex[:8]}"
    await execute(postgres_url, f"CREATE ROLE {name} LOGIN NOINHERIT PASSWORD '{RUN_PASSWORD}'")
    yield name
    await execute(postgres_url, f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.fixture
def run_url(postgres_url: str, run_role: str) -> str:
    """The same database as that role sees it."""
    own = make_url(postgres_url).set(username=run_role, password=RUN_PASSWORD)
    return own.render_as_string(hide_password=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file that others are copied from."""
    from artstore_grpc.store.schema import upgrade

    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    await upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh, migrated file."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'artstore.db')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database: the test runs on SQLite and on PostgreSQL."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest_asyncio.fixture
async def store(store_url: str) -> AsyncIterator[SqlStore]:
    """An open store on an empty database: the test runs on SQLite and on PostgreSQL."""
    from artstore_grpc.store.sql import SqlStore

    opened = SqlStore(store_url)
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def redis_server_url(worker_id: str) -> Iterator[str]:
    """A Redis database that this worker has for itself."""
    named = os.environ.get("ARTSTORE_TEST_REDIS_URL")
    if named:
        number = 0 if worker_id == "master" else int(worker_id.removeprefix("gw"))
        assert number < 16, "a Redis server has 16 databases: give ARTSTORE_TEST_REDIS_URL at most 16 workers"
        yield make_url(named).update_query_dict({"db": str(number)}).render_as_string(hide_password=False)
        return
    with Redis() as server:
        yield server.url()


@pytest_asyncio.fixture
async def redis_url(redis_server_url: str) -> str:
    """The URL of an empty Redis database."""
    async with redis.asyncio.from_url(redis_server_url) as client:
        await client.flushdb()
    return redis_server_url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many inputs the fuzz tests have tried, since their number is a promise of docs/fuzzing.md."""
    reports = [
        report for found in terminalreporter.stats.values() for report in found if hasattr(report, "user_properties")
    ]
    tried = sum(value for report in reports for name, value in report.user_properties if name == "inputs")
    if tried:
        terminalreporter.write_line(f"{tried:,} inputs of fuzz tests")
