"""Archives: rows up to a checkpoint are written to a file, verified there, and only then deleted from the database.

Whatever happens in between, nothing is lost: before the file is whole and on disk under its name no row is deleted;
from then on the ledger has a signed record of the file, and the deletion can be begun again by the same command. The
newest rows stay, since replicas tail them and readers resume from them.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import BinaryIO

from artstore_grpc import exports
from artstore_grpc.checkpoints import Archive
from artstore_grpc.ledger import Head
from artstore_grpc.model import Checkpoint, Event, EventKind, Lease
from artstore_grpc.notary import Notary, archive_in
from artstore_grpc.store.protocol import Store
from artstore_grpc.verification import Verification

KEPT_ROWS = 10_000
"""Rows before the newest checkpoint that are never archived."""
LEASE = "archive"
LEASE_LIFETIME = timedelta(seconds=60)
BATCH = 1000
BATCHES_PER_LEASE = 10
DELETED_AT_ONCE = 2000
"""Rows that one transaction deletes: it takes some milliseconds, in which SQLite has no other writer."""
CHECKPOINT_PAGE = 1000

Told = Callable[[str, int, int], None]
"""Hears how far it is: `writing` or `deleting`, rows done, rows in all."""


class ArchiveRefused(Exception):
    """Nothing was archived; the message is one sentence that says why."""


class Archives:
    """One command's archiving. `holder` names it in the lease that keeps two from running at once."""

    def __init__(self, store: Store, notary: Notary, now: Callable[[], datetime], holder: str) -> None:
        self._store = store
        self._notary = notary
        self._now = now
        self._holder = holder

    async def by_number(self, number: int) -> Checkpoint:
        """The checkpoint of a number. Raises ArchiveRefused when there is none, or it is too new."""
        found = await self._store.checkpoints(number - 1, 1)
        if not found or found[0].number != number:
            raise ArchiveRefused(f"There is no checkpoint {number}.")
        if found[0].sequence > await self._newest_row():
            raise ArchiveRefused(f"Checkpoint {number} is too new: the last {KEPT_ROWS:,} rows stay.")
        return found[0]

    async def older_than(self, age: timedelta) -> Checkpoint:
        """The newest checkpoint that is as old as this. Raises ArchiveRefused when none is, or all are too new."""
        before, newest = self._now() - age, await self._newest_row()
        chosen: Checkpoint | None = None
        while page := await self._store.checkpoints(chosen.number if chosen else 0, CHECKPOINT_PAGE):
            fitting = [each for each in page if each.time <= before and each.sequence <= newest]
            chosen = fitting[-1] if fitting else chosen
            if len(fitting) < len(page):
                break
        if chosen is None:
            raise ArchiveRefused(f"No checkpoint is that old and has {KEPT_ROWS:,} rows after it, which stay.")
        return chosen

    async def pending(self) -> Archive | None:
        """An archive whose file was written and whose rows are not all deleted yet."""
        archive = await self._last()
        first = await self._store.ledger(0, 1)
        return archive if archive and first and first[0].sequence <= archive.sequence else None

    async def archive(self, through: Checkpoint, path: Path, told: Told) -> Archive:
        """Writes the rows up to a checkpoint to a file that doesn't exist yet, then deletes them.

        Raises ArchiveRefused, OSError, and what Verification raises for a ledger that is broken; LeaseLost when it took
        so long that another has begun.
        """
        lease = await self._lease()
        try:
            before = await self._last()
            if before is not None and through.sequence <= before.sequence:
                raise ArchiveRefused(f"Rows up to {before.sequence} were archived already.")
            archive = Archive(
                through.number, through.sequence, through.hash, await self._write(through, before, path, told)
            )
            await self._record(archive, lease)
        finally:
            await self._store.release_lease(lease)
        await self._delete(archive, told)
        return archive

    async def resume(self, archive: Archive, path: Path, told: Told) -> Archive:
        """Deletes what is left of the rows that a file holds. Raises ArchiveRefused unless it is that file."""
        if digest_of(path) != archive.file:
            begun = f"An archive up to row {archive.sequence} was begun, and its rows are not all deleted"
            raise ArchiveRefused(f"{begun}: name its file, whose SHA-256 is {archive.file}.")
        await self._delete(archive, told)
        return archive

    async def _write(self, through: Checkpoint, before: Archive | None, path: Path, told: Told) -> str:
        """The file, complete and on disk under its name, or nothing; its SHA-256."""
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                await self._rows(file, through, before, told)
                file.flush()
                os.fsync(file.fileno())
            return publish(Path(part), path, (through.sequence, through.hash))
        finally:
            os.unlink(part)  # noqa: PTH108 - Path's own would be refused in a coroutine

    async def _rows(self, file: BinaryIO, through: Checkpoint, before: Archive | None, told: Told) -> None:
        keys = await self._notary.keys()
        file.write(exports.format_line())
        for key in keys.values():
            file.write(exports.key_line({name: str(value) for name, value in key.as_dict(private=False).items()}))
        if before is not None:
            record = await self._store.last_ledger_row(EventKind.LEDGER_ARCHIVED)
            file.write(exports.archive_line(str(record.parsed()["record"]) if record else ""))
        done = Verification(keys, archive=before)
        for batch in count(1):
            after = done.head[0]
            if after >= through.sequence:
                break
            if batch % BATCHES_PER_LEASE == 0:
                await self._lease()
            rows = [row for row in await self._store.ledger(after, BATCH) if row.sequence <= through.sequence]
            last = rows[-1].sequence if rows else through.sequence
            signed = [each for each in await self._signed(after, last) if each.number <= through.number]
            done.feed(rows, signed)
            file.writelines(exports.merged(rows, signed))
            told("writing", done.head[0], through.sequence)
        file.write(exports.end_line(done.verified_rows, done.verified_checkpoints))

    async def _signed(self, after: int, through: int) -> list[Checkpoint]:
        """The checkpoints of some rows; there may be many where the rows were archived before."""
        found: list[Checkpoint] = []
        while page := await self._store.checkpoints_of(after, through, CHECKPOINT_PAGE):
            found += page
            after = page[-1].sequence
        return found

    async def _record(self, archive: Archive, lease: Lease) -> None:
        detail = {
            "checkpoint": archive.checkpoint,
            "sequence": archive.sequence,
            "sha256": archive.file,
            "record": await self._notary.archive_record(archive),
        }
        lease = await self._store.acquire_lease(LEASE, self._holder, LEASE_LIFETIME, self._now()) or lease
        async with self._store.unit() as unit:
            await unit.require_lease(lease)
            unit.record(Event(self._now(), "system", EventKind.LEDGER_ARCHIVED, str(archive.checkpoint), detail))

    async def _delete(self, archive: Archive, told: Told) -> None:
        deleted = DELETED_AT_ONCE
        while deleted == DELETED_AT_ONCE:
            deleted = await self._store.delete_ledger(archive.sequence, DELETED_AT_ONCE)
            first = await self._store.ledger(0, 1)
            told("deleting", min(first[0].sequence - 1, archive.sequence) if first else 0, archive.sequence)

    async def _lease(self) -> Lease:
        lease = await self._store.acquire_lease(LEASE, self._holder, LEASE_LIFETIME, self._now())
        if lease is None:
            raise ArchiveRefused("Another archive is being made; one that was killed is over within a minute.")
        return lease

    async def _last(self) -> Archive | None:
        row = await self._store.last_ledger_row(EventKind.LEDGER_ARCHIVED)
        return archive_in(row, await self._notary.keys())

    async def _newest_row(self) -> int:
        """The last row that may be archived."""
        newest = await self._store.last_checkpoint()
        return newest.sequence - KEPT_ROWS if newest else 0


def publish(part: Path, path: Path, head: Head) -> str:
    """Gives a file that is on disk its name, for good, once it verifies and leads to the head; its SHA-256.

    Raises ArchiveRefused when another file has the name; one of equal contents, left by a command that was killed, will
    do.
    """
    with part.open("rb") as file:
        written = exports.verify(file, published=head)
    assert written.last == head
    digest = digest_of(part)
    try:
        os.link(part, path)
    except FileExistsError:
        if digest_of(path) != digest:
            raise ArchiveRefused(f"{path} exists and holds something else.") from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex; empty where there is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
