"""A copy of a SQLite database, taken while others write: consistent, compact, and its owner's only.

`VACUUM INTO` reads in one transaction and holds nobody up (sqlite.org/lang_vacuum.html §3). The copy is checked and on
disk before it gets its name, which nothing may have had. What it holds besides the rows that were committed is nothing:
no key that opens what is sealed in it.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from artstore_grpc.files import settle

BUSY_SECONDS = 30.0


class BackupFailed(Exception):
    """There is no copy; one sentence says why."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy: its bytes, the schema's revision, where its ledger ends, and which key-encryption key its root key wants;
    an empty id where it has no keys yet."""

    size: int
    schema: str
    sequence: int
    hash: bytes
    kek_id: str


def backup(source: Path, target: Path) -> Backup:
    """Copies a database to a file that there isn't yet. Raises BackupFailed, and OSError for a folder that can't be
    written."""
    if not source.is_file():
        raise BackupFailed(f"There is no database at {source}.")
    if target.exists():
        raise BackupFailed(f"{target} exists, and is not overwritten.")
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")  # mode 0600
    part = Path(name)
    try:
        _copy(source, part)
        made = _looked_at(part)
        os.fsync(descriptor)
        os.link(part, target)  # all or nothing, and never over another
    except FileExistsError:
        raise BackupFailed(f"{target} exists, and is not overwritten.") from None
    except sqlite3.Error as error:
        raise BackupFailed(f"The database can't be copied: {error}.") from error
    finally:
        os.close(descriptor)
        part.unlink()
    settle(target.parent)
    return made


def _copy(source: Path, part: Path) -> None:
    """Into a file that is there and empty, which SQLite takes: it would make one that everybody may read."""
    with closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as database:
        database.execute("VACUUM INTO ?", (str(part),))


def _looked_at(part: Path) -> Backup:
    """What is in the copy. Raises BackupFailed when it is damaged, as the database then is."""
    with closing(sqlite3.connect(f"file:{quote(str(part))}?mode=ro", uri=True)) as copy:
        (sound,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if sound != "ok":
            raise BackupFailed(f"The database is damaged: {sound}.")
        (schema,) = copy.execute("SELECT version_num FROM alembic_version").fetchone()
        sequence, head = copy.execute("SELECT sequence, hash FROM ledger_head").fetchone()
        keys = copy.execute("SELECT kek_id FROM wrapped_keys WHERE name = 'root'").fetchone()
    return Backup(part.stat().st_size, schema, sequence, head, keys[0] if keys else "")
