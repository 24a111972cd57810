"""A service under attack, one per worker and database; after each test it must be as good as new."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url

from artstore_grpc.vault import new_key
from tests.hostile.victim import Victim
from tests.installation import Installation


def execute(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    asyncio.run(run())


@pytest.fixture(scope="session")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A service on the embedded default."""
    with Installation(tmp_path_factory.mktemp("hostile")) as installation, closing(Victim(installation)) as victim:
        yield victim


@pytest.fixture(scope="session")
def on_postgresql(tmp_path_factory: pytest.TempPathFactory, postgres_server_url: str) -> Iterator[Victim]:
    """A service on a PostgreSQL database of its own."""
    from artstore_grpc.store.schema import upgrade

    name = f"artstore_{uuid4().hex[:12]}"
    execute(postgres_server_url, f"CREATE DATABASE {name}")
    url = make_url(postgres_server_url).set(database=name).render_as_string(hide_password=False)
    asyncio.run(upgrade(url))
    secrets = {"key_encryption_key": new_key(), "issuer": "https://identity.test"}
    folder = tmp_path_factory.mktemp("hostile")
    with Installation(folder, database_url=url, **secrets) as installation, closing(Victim(installation)) as victim:
        yield victim
    execute(postgres_server_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def victim(on_sqlite: Victim) -> Iterator[Victim]:
    """A service on SQLite, which must be unharmed at the end."""
    yield on_sqlite
    on_sqlite.assert_unharmed()


@pytest.fixture(params=["sqlite", "postgresql"])
def each_victim(request: pytest.FixtureRequest) -> Iterator[Victim]:
    """The same, on SQLite and on PostgreSQL, for what reaches the database."""
    service: Victim = request.getfixturevalue(f"on_{request.param}")
    yield service
    service.assert_unharmed()
