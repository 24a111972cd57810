"""Copies of a SQLite database: consistent while others write, never over a file, and nothing where there is none."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from artstore_grpc import ledger
from artstore_grpc.store.backup import BackupFailed, backup
from artstore_grpc.store.schema import check
from artstore_grpc.store.sql import SqlStore
from tests.store.samples import account, event

WRITES = 60


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def write(store: SqlStore, count: int) -> None:
    for _ in range(count):
        async with store.unit() as unit:
            made = account()
            await unit.add_account(made)
            unit.record(event(made.id))


async def test_a_copy_is_one_moment_of_what_goes_on(sqlite_url: str, tmp_path: Path) -> None:
    """While two writers add accounts each with its row: every copy has as many accounts as rows, a chain that holds,
    and the schema; the writers lose nothing."""
    stores = [SqlStore(sqlite_url) for _ in range(2)]
    writing = [asyncio.create_task(write(store, WRITES)) for store in stores]
    taken = []
    while not all(task.done() for task in writing) or not taken:
        path = tmp_path / f"copy {len(taken)}.db"
        taken.append((path, await asyncio.to_thread(backup, file_of(sqlite_url), path)))
    await asyncio.gather(*writing)
    assert (await stores[0].head())[0] == 2 * WRITES
    for path, made in taken:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with closing(sqlite3.connect(path)) as copy:
            (accounts,) = copy.execute("SELECT count(*) FROM accounts").fetchone()
        assert accounts == made.sequence
        store = SqlStore(f"sqlite:///{path}")
        head = ledger.verify(await store.ledger(0, 1000), ledger.GENESIS) if made.sequence else ledger.GENESIS
        assert head == (made.sequence, made.hash) == await store.head()
        await store.close()
        await check(f"sqlite:///{path}")
    for store in stores:
        await store.close()


def test_nothing_is_overwritten(sqlite_url: str, tmp_path: Path) -> None:
    """A file that is there stays as it is; so does a link's target; nothing else is left."""
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_text("mine")
    link.symlink_to(tmp_path / "nowhere")
    before = {path.name for path in tmp_path.iterdir()}
    for path in (there, link):
        with pytest.raises(BackupFailed, match="exists, and is not overwritten"):
            backup(file_of(sqlite_url), path)
    assert there.read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} - before <= {"artstore.db-wal", "artstore.db-shm"}


def test_where_there_is_nothing(tmp_path: Path) -> None:
    """Neither a database nor a copy is made."""
    with pytest.raises(BackupFailed, match="There is no database at"):
        backup(tmp_path / "missing.db", tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(sqlite_url: str, tmp_path: Path) -> None:
    """A folder that isn't there is the caller's to know."""
    with pytest.raises(OSError, match="missing"):
        backup(file_of(sqlite_url), tmp_path / "missing" / "copy.db")


def test_a_damaged_database_gives_no_copy(sqlite_url: str, tmp_path: Path) -> None:
    """No database, one that is cut off, one whose pages are overwritten: refused, and nothing is left behind."""
    source = file_of(sqlite_url)
    whole = source.read_bytes()
    for contents in (
        b"no database at all" * 1000,
        whole[: len(whole) // 2],
        whole[:4096] + os.urandom(len(whole) - 4096),
    ):
        source.write_bytes(contents)
        with pytest.raises(BackupFailed, match=r"can't be copied|is damaged"):
            backup(source, tmp_path / "copy.db")
        assert not [
            path for path in tmp_path.iterdir() if path.name not in {source.name, "artstore.db-wal", "artstore.db-shm"}
        ]
