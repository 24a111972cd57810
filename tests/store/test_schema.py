"""Migrations: from nothing to the tables of tables.py, once whoever asks, and a clear refusal of other schemas."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.store.schema import SchemaMismatch, check, upgrade
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.store.tables import metadata
from tests.store.migrating import run
from tests.store.samples import DAY, NOW

UPGRADE = "import asyncio, sys; from artstore_grpc.store.schema import upgrade; asyncio.run(upgrade(sys.argv[1]))"


def upgrade_elsewhere(url: str) -> subprocess.CompletedProcess[str]:
    """An upgrade in a process of its own."""
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", UPGRADE, url], cwd=root, capture_output=True, text=True)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def set_revision(url: str, revision: str) -> None:
    await run(url, lambda c: c.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision}))


def described(connection: Connection) -> dict[str, Any]:
    """Every table with its constraints and indexes, by name."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
            "primary key": inspector.get_pk_constraint(table),
            "unique": sorted(c["name"] or "" for c in inspector.get_unique_constraints(table)),
            "checks": sorted((c["name"] or "", c["sqltext"]) for c in inspector.get_check_constraints(table)),
            "foreign keys": sorted(c["name"] or "" for c in inspector.get_foreign_keys(table)),
            "indexes": sorted((i["name"] or "", tuple(i["column_names"])) for i in inspector.get_indexes(table)),
        }
        for table in sorted(inspector.get_table_names())
        if table != "alembic_version"
    }


async def test_empty_database_is_refused_then_upgraded(empty_url: str) -> None:
    """An empty database is refused with the command to run; after the upgrade it is accepted and works."""
    with pytest.raises(SchemaMismatch, match=r"no tables yet: run `artstore-grpc db upgrade`\.$"):
        await check(empty_url)
    await upgrade(empty_url)
    await check(empty_url)
    store = SqlStore(empty_url)
    assert await store.head() == (0, bytes(32))
    await store.close()


async def test_second_upgrade_changes_nothing(store_url: str) -> None:
    """An upgrade of what is up to date keeps every row."""
    store = SqlStore(store_url)
    await store.acquire_lease("job", "one", DAY, NOW)
    await upgrade(store_url)
    assert await store.acquire_lease("job", "two", DAY, NOW) is None
    await store.close()


LEAVING: frozenset[str] = frozenset()
"""Columns, such as `accounts.old`, that tables.py names no more, until a contraction takes them away
(docs/upgrading.md)."""


async def test_migrations_lead_to_the_tables(empty_url: str) -> None:
    """What migrations make is what tables.py says: Alembic finds no difference, nor does a look at every name."""
    await run(empty_url, metadata.create_all)
    wanted = await run(empty_url, described)
    await run(empty_url, metadata.drop_all)
    await upgrade(empty_url)
    assert await run(empty_url, lambda c: differences(c, LEAVING)) == []
    found = await run(empty_url, described)
    for table in found:
        found[table]["columns"] = [each for each in found[table]["columns"] if f"{table}.{each[0]}" not in LEAVING]
    assert found == wanted


async def test_a_column_that_leaves_is_foreseen(store_url: str) -> None:
    """A column that is still there is a difference, unless it is known to be leaving."""
    await run(store_url, lambda c: c.execute(text("ALTER TABLE accounts ADD COLUMN trial TEXT")))
    assert len(await run(store_url, lambda c: differences(c, LEAVING))) == 1
    assert await run(store_url, lambda c: differences(c, {"accounts.trial"})) == []


def differences(connection: Connection, leaving: Collection[str]) -> list[Any]:
    """What Alembic would change to come to tables.py."""
    changes = compare_metadata(MigrationContext.configure(connection), metadata)
    return [each for each in changes if each[0] != "remove_column" or f"{each[2]}.{each[3].name}" not in leaving]


async def test_newer_schema_is_refused(store_url: str) -> None:
    """A schema of a later program is refused, by check and by upgrade, which leaves it as it is."""
    await set_revision(store_url, "9999")
    for refuses in (check, upgrade, check):
        with pytest.raises(SchemaMismatch, match=r"\(9999\) is newer than .*: install a newer artstore-grpc\.$"):
            await refuses(store_url)


async def test_upgrades_at_once_all_succeed(empty_url: str) -> None:
    """Several upgrades in one process wait for each other."""
    await asyncio.gather(*(upgrade(empty_url) for _ in range(4)))
    await check(empty_url)


@pytest.mark.slow
async def test_processes_that_upgrade_at_once_all_succeed(empty_url: str) -> None:
    """So do those of several processes: replicas that start together need no order."""
    ended = await asyncio.gather(*(asyncio.to_thread(upgrade_elsewhere, empty_url) for _ in range(4)))
    assert [(process.returncode, process.stderr) for process in ended] == [(0, "")] * 4
    await check(empty_url)


async def test_failed_migration_leaves_nothing(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade is one transaction: when it fails halfway, the database is as it was."""

    def fail(connection: Connection, revision: str) -> None:
        migrate(connection, revision)
        raise RuntimeError("halfway")

    from artstore_grpc.store import schema

    migrate = schema._migrate
    monkeypatch.setattr(schema, "_migrate", fail)
    with pytest.raises(RuntimeError, match="halfway"):
        await upgrade(empty_url)
    with pytest.raises(SchemaMismatch, match="no tables yet"):
        await check(empty_url)


async def test_new_file_is_its_owners_only(tmp_path: Path) -> None:
    """A SQLite file, and the log beside it, can be read by their owner only."""
    path = tmp_path / "new.db"
    await upgrade(f"sqlite:///{path}")
    store = SqlStore(f"sqlite:///{path}")
    await store.acquire_lease("job", "one", DAY, NOW)
    assert modes(tmp_path) == dict.fromkeys(("new.db", "new.db-wal", "new.db-shm"), 0o600)
    await store.close()


async def test_missing_folder_is_unavailable(tmp_path: Path) -> None:
    """A file that cannot be made is an unavailable store, not a crash."""
    with pytest.raises(StoreUnavailable):
        await check(f"sqlite:///{tmp_path / 'missing' / 'x.db'}")
