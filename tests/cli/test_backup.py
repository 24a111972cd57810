"""`db status` and `db backup` as commands."""

from __future__ import annotations

import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.processes import run

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somewhere with a bootstrapped embedded database in `var`."""
    ended = run("bootstrap", "--json", folder=tmp_path, ARTSTORE_BCRYPT_COST="4", ARTSTORE_ISSUER="http://issuer.test")
    assert not ended.returncode, ended.stderr
    return tmp_path


def test_a_copy(folder: Path) -> None:
    """It is whole, its owner's only, says where its ledger ends and which key it wants; and holds no key that opens
    it."""
    ended = run("db", "backup", "copy.db", "--json", folder=folder)
    assert not ended.returncode, ended.stderr
    said = json.loads(ended.stdout)
    copy = folder / "copy.db"
    assert said["bytes"] == copy.stat().st_size
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as database:
        (accounts,) = database.execute("SELECT count(*) FROM accounts").fetchone()
        sequence, head = database.execute("SELECT sequence, hash FROM ledger_head").fetchone()
    assert (accounts, said["sequence"], said["hash"]) == (1, sequence, head.hex())
    assert said["key_encryption_key"].startswith("local:")
    key = next(path for path in (folder / "var").iterdir() if path.suffix == ".key").read_text().strip()
    assert key.encode() not in copy.read_bytes()
    assert {path.name for path in folder.iterdir()} == {"var", "copy.db"}


def test_a_postgresql_is_for_its_own_tools(tmp_path: Path) -> None:
    """The sentence names them, before the database is asked anything."""
    elsewhere = {
        "ARTSTORE_DATABASE_URL": "postgresql://db/artstore",
        "ARTSTORE_ISSUER": "https://issuer.test",
        "ARTSTORE_KEY_ENCRYPTION_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    }
    ended = run("db", "backup", "copy.db", folder=tmp_path, **elsewhere)
    assert ended.returncode == 10
    assert "pg_dump or pg_basebackup" in ended.stderr


def test_what_is_not_there_is_not_copied(tmp_path: Path) -> None:
    """Its exit code; what else can't be copied is told by the same sentences (tests/store/test_backup.py)."""
    ended = run("db", "backup", "copy.db", folder=tmp_path)
    assert ended.returncode == 7
    assert "There is no database at" in ended.stderr


def test_status(folder: Path) -> None:
    """What the schema is, the program's, and what is pending; 7 where a start would be refused; no file is made by
    asking."""
    ended = run("db", "status", "--json", folder=folder)
    assert not ended.returncode, ended.stderr
    said = json.loads(ended.stdout)
    assert said["runs"]
    assert said["schema"] == said["program"]
    assert said["pending"] == []
    with closing(sqlite3.connect(folder / "var/identity.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '0003'")
    older = run("db", "status", folder=folder)
    assert older.returncode == 7
    assert "break" in older.stdout
    assert "is older than this program's" in older.stderr
    other = str(folder / "other")
    assert run("db", "status", folder=folder, ARTSTORE_DATA_DIR=other).returncode == 7
    assert not Path(other).exists()
