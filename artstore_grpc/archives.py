"""Archives: rows up to a checkpoint are written to a file, verified there, and only then deleted from the database.

Whatever happens in between, nothing is lost: before the file is whole and on disk under its name no row is deleted;
from then on the ledger has a signed record of the file, and the deletion can be begun again by the same command. The
newest rows stay, since replicas tail them and readers resume from them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO

from artstore_grpc import exports
from artstore_grpc.checkpoints import Archive
from artstore_grpc.errors import LeaseLost
from artstore_grpc.files import settle
from artstore_grpc.ledger import Head
from artstore_grpc.model import Comparison, Lease, LedgerQuery
from artstore_grpc.notary import Notary, archive_in
from artstore_grpc.records import SYSTEM, Checkpoint, Event, EventKind, LedgerRow
from artstore_grpc.store.protocol import Store
from artstore_grpc.verification import Broken, HeadArchived, Verification

KEPT_ROWS = 10_000
"""Rows before the newest checkpoint that are never archived."""
LEASE = "archive"
LEASE_LIFETIME = timedelta(seconds=60)
RENEWED_EVERY = timedelta(seconds=10)
"""While a file is verified: a million rows take a minute."""
BATCH = 1000
BATCHES_PER_LEASE = 10
DELETED_AT_ONCE = 2000
"""Rows that one transaction deletes: it takes some milliseconds, in which SQLite has no other writer."""
CHECKPOINT_PAGE = 1000
ARCHIVED = (Comparison("kind", "=", EventKind.LEDGER_ARCHIVED),)

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

    async def left_behind(self, path: Path) -> Checkpoint | None:
        """The checkpoint that a file leads to which a killed command has written, and not recorded yet."""
        try:
            last = (await asyncio.to_thread(whole, path)).last
        except (OSError, exports.Malformed, HeadArchived, *Broken):
            return None
        found = await self._store.last_checkpoint(last[0])
        return found if found is not None and (found.sequence, found.hash) == last else None

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
            seen = await self._last()
            before = await self._before(through, seen)
            digest = await self._write(through, before, path, lease, told)
            archive = Archive(through.number, through.sequence, through.hash, digest)
            await self._record(archive, seen, lease)
            await self._delete(archive, lease, told)
        finally:
            await self._store.release_lease(lease)
        return archive

    async def resume(self, archive: Archive, path: Path, told: Told) -> Archive:
        """Deletes what is left of the rows that a file holds. Raises ArchiveRefused unless it is that file, and
        LeaseLost."""
        if digest_of(path) != archive.file:
            raise unfinished(archive)
        lease = await self._lease()
        try:
            await self._delete(archive, lease, told)
        finally:
            await self._store.release_lease(lease)
        return archive

    async def replaceable(self, pending: Archive, path: Path) -> bool:
        """Whether another archive may be made in place of a pending one: this isn't its file, which may be lost, and
        none of its rows was deleted."""
        first = await self._first()
        untouched = first == 1 or await self._ended_before(first) is not None
        return untouched and digest_of(path) != pending.file

    async def _before(self, through: Checkpoint, seen: Archive | None) -> LedgerRow | None:
        """The record of the archive that has the rows before those that are left. Raises ArchiveRefused where the last
        archive reaches too far, or is half deleted.

        One in place of another must reach as far: that other's command may be late, and delete its rows yet.
        """
        first = await self._first()
        pending = seen is not None and first <= seen.sequence
        before = await self._ended_before(first)
        if seen is not None and pending and first > 1 and before is None:
            raise unfinished(seen)
        if seen is not None and through.sequence < seen.sequence + (0 if pending else 1):
            raise ArchiveRefused(f"Rows up to {seen.sequence} were archived already.")
        return before

    async def _ended_before(self, first: int) -> LedgerRow | None:
        """The record of the archive that ended right before a row. It is still there: it came after its own rows, and
        those after them are left."""
        keys, found, after = await self._notary.keys(), None, 0
        while page := await self._store.ledger_page(LedgerQuery(BATCH, ARCHIVED, after)):
            for row in page:
                archive = archive_in(row, keys)
                found = row if archive and archive.sequence == first - 1 else found
            after = page[-1].sequence
        return found

    async def _write(self, through: Checkpoint, before: LedgerRow | None, path: Path, lease: Lease, told: Told) -> str:
        """The file, complete and on disk under its name, or nothing; its SHA-256."""
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                await self._rows(file, through, before, lease, told)
                file.flush()
                os.fsync(file.fileno())
            digest = await self._meanwhile(lease, partial(checked, Path(part), (through.sequence, through.hash)))
            publish(Path(part), path, digest)
        finally:
            os.unlink(part)  # noqa: PTH108 - Path's own would be refused in a coroutine
        return digest

    async def _meanwhile(self, lease: Lease, work: Callable[[], str]) -> str:
        """Work in a thread, the lease renewed while it takes its time."""
        task = asyncio.create_task(asyncio.to_thread(work))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=RENEWED_EVERY.total_seconds())
                await self._renew(lease)
        finally:
            await asyncio.wait({task})  # it reads a file that is deleted next
        return task.result()

    async def _rows(
        self, file: BinaryIO, through: Checkpoint, before: LedgerRow | None, lease: Lease, told: Told
    ) -> None:
        keys = await self._notary.keys()
        file.write(exports.format_line())
        for key in keys.values():
            file.write(exports.key_line({name: str(value) for name, value in key.as_dict(private=False).items()}))
        if before is not None:
            file.write(exports.archive_line(str(before.parsed()["record"])))
        done = Verification(keys, archive=archive_in(before, keys))
        for batch in count(1):
            after = done.head[0]
            if after >= through.sequence:
                break
            if batch % BATCHES_PER_LEASE == 0:
                await self._renew(lease)
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

    async def _record(self, archive: Archive, seen: Archive | None, lease: Lease) -> None:
        """Records an archive, unless another than the one that was seen when it began is the last by now."""
        detail = {
            "checkpoint": archive.checkpoint,
            "sequence": archive.sequence,
            "sha256": archive.file,
            "record": await self._notary.archive_record(archive),
        }
        await self._renew(lease)
        async with self._store.unit() as unit:
            await unit.require_lease(lease)  # and from here on nobody else can record one
            if await self._last() != seen:
                raise ArchiveRefused("Another archive was recorded meanwhile; the file of this one is not needed.")
            unit.record(Event(self._now(), SYSTEM, EventKind.LEDGER_ARCHIVED, str(archive.checkpoint), detail))

    async def _delete(self, archive: Archive, lease: Lease, told: Told) -> None:
        deleted = DELETED_AT_ONCE
        while deleted == DELETED_AT_ONCE:
            await self._renew(lease)
            deleted = await self._store.delete_ledger(archive.sequence, DELETED_AT_ONCE)
            first = await self._store.ledger(0, 1)
            told("deleting", min(first[0].sequence - 1, archive.sequence) if first else 0, archive.sequence)

    async def _lease(self) -> Lease:
        lease = await self._store.acquire_lease(LEASE, self._holder, LEASE_LIFETIME, self._now())
        if lease is None:
            raise ArchiveRefused("Another archive is being made; one that was killed is over within a minute.")
        return lease

    async def _renew(self, lease: Lease) -> None:
        """Keeps the lease. Raises LeaseLost once it has run out, even if nobody has it now: somebody had the time to
        make another archive."""
        renewed = await self._store.acquire_lease(LEASE, self._holder, LEASE_LIFETIME, self._now())
        if renewed is not None and renewed.fence != lease.fence:
            await self._store.release_lease(renewed)
        if renewed is None or renewed.fence != lease.fence:
            raise LeaseLost(LEASE)

    async def _first(self) -> int:
        """The first row that is left."""
        first = await self._store.ledger(0, 1)
        return first[0].sequence if first else 1

    async def _last(self) -> Archive | None:
        row = await self._store.last_ledger_row(EventKind.LEDGER_ARCHIVED)
        return archive_in(row, await self._notary.keys())

    async def _newest_row(self) -> int:
        """The last row that may be archived."""
        newest = await self._store.last_checkpoint()
        return newest.sequence - KEPT_ROWS if newest else 0


def unfinished(archive: Archive) -> ArchiveRefused:
    begun = f"An archive up to row {archive.sequence} was begun, and its rows are not all deleted"
    return ArchiveRefused(f"{begun}: name its file, whose SHA-256 is {archive.file}.")


def whole(path: Path) -> exports.Verified:
    """What a file holds, once it verifies."""
    with path.open("rb") as file:
        return exports.verify(file)


def checked(part: Path, head: Head) -> str:
    """The SHA-256 of a file that is on disk, once it verifies and leads to the head."""
    with part.open("rb") as file:
        written = exports.verify(file, published=head)
    assert written.last == head
    return digest_of(part)


def publish(part: Path, path: Path, digest: str) -> None:
    """Gives a file that is on disk its name, for good.

    Raises ArchiveRefused when another file has the name; one of equal contents, left by a command that was killed, will
    do.
    """
    try:
        os.link(part, path)
    except FileExistsError:
        if digest_of(path) != digest:
            raise ArchiveRefused(f"{path} exists and holds something else.") from None
    settle(path.parent)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex; empty where there is no file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
