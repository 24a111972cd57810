"""Archives that are killed, overtaken or lost, on both stores: nothing is lost, and what was begun can be ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from artstore_grpc import archives, exports
from artstore_grpc.archives import ArchiveRefused, Archives
from artstore_grpc.cli.archive import carried_out
from artstore_grpc.errors import LeaseLost
from artstore_grpc.model import Lease
from tests.archives.stand import KEPT, Killed, after, archiving, killed, made, silent, verify
from tests.auditing import Ledger


@pytest.mark.parametrize("at", [("writing", 4), ("writing", 1000), ("deleting", 7), ("deleting", 14)], ids=str)
async def test_killed(kept: Ledger, tmp_path: Path, at: tuple[str, int]) -> None:
    """Killed anywhere, the file is whole or the rows are still there; the ledger is intact all the while, and the same
    command ends what was begun."""
    before, path = await kept.rows(), tmp_path / "one"
    through = await archiving(kept).by_number(3)

    def told(what: str, done: int, total: int) -> None:
        if what == at[0] and done >= min(at[1], total):
            raise Killed

    with pytest.raises(Killed):
        await archiving(kept).archive(through, path, told)
    assert await kept.is_intact()
    if at[0] == "writing":
        assert not path.exists()
        assert await kept.rows() == before
        assert await archiving(kept).pending() is None
        await made(kept, 3, path)
    else:
        assert verify(path).last == (through.sequence, through.hash)
        pending = await archiving(kept).pending()
        assert pending
        with pytest.raises(ArchiveRefused, match=pending.file):
            await archiving(kept, "two").resume(pending, tmp_path / "another", silent)
        assert len(await kept.rows()) < len(before)
        await archiving(kept, "two").resume(pending, path, silent)
    assert await archiving(kept).pending() is None
    assert (await kept.rows())[0].sequence == through.sequence + 1
    assert await kept.is_intact()


async def test_killed_before_it_was_recorded(kept: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was finished but not recorded is made again, to the byte; another file of its name is left alone."""
    path = tmp_path / "one"
    with monkeypatch.context() as patched:
        patched.setattr(Archives, "_record", killed)
        with pytest.raises(Killed):
            await made(kept, 3, path)
    written = path.read_bytes()
    (tmp_path / "other").write_bytes(b"precious")
    with pytest.raises(ArchiveRefused, match="something else"):
        await made(kept, 3, tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == b"precious"
    assert len(await kept.rows()) > 60
    await made(kept, 3, path)
    assert path.read_bytes() == written


async def test_the_same_command_by_age(kept: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was killed before its file was recorded is ended by itself run again, though another checkpoint is old
    enough by then; a file that is something else stays one."""
    path, age = tmp_path / "one", timedelta(hours=1)
    kept.clock.advance(age)
    with monkeypatch.context() as patched:
        patched.setattr(Archives, "_record", killed)
        with pytest.raises(Killed):
            await carried_out(archiving(kept), path, None, age, lambda done, total: None)
    written, last = path.read_bytes(), verify(path).last
    await kept.grow(3 * KEPT)
    await kept.notary.run()
    await kept.grow(KEPT)
    kept.clock.advance(2 * age)
    assert (await archiving(kept).older_than(age)).sequence > last[0]
    archive = await carried_out(archiving(kept), path, None, age, lambda done, total: None)
    assert ((archive.sequence, archive.hash), path.read_bytes()) == (last, written)
    assert await kept.is_intact()
    (tmp_path / "other").write_bytes(b"precious")
    with pytest.raises(ArchiveRefused, match="something else"):
        await carried_out(archiving(kept), tmp_path / "other", None, age, lambda done, total: None)


async def test_one_at_a_time(kept: Ledger, tmp_path: Path) -> None:
    """While one archive is being made another is refused."""
    assert await kept.store.acquire_lease(archives.LEASE, "two", archives.LEASE_LIFETIME, kept.clock())
    with pytest.raises(ArchiveRefused, match="Another"):
        await made(kept, 3, tmp_path / "one")
    kept.clock.advance(archives.LEASE_LIFETIME)
    await made(kept, 3, tmp_path / "one")


def overtaken_by_two(
    kept: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch, late: Callable[[], None] = lambda: None
) -> None:
    """Before the next archive is recorded, which is late then, "two" makes one up to checkpoint 4."""
    record = Archives._record

    async def overtaken(self: Archives, *arguments: Any) -> None:
        monkeypatch.setattr(Archives, "_record", record)
        late()
        command = archiving(kept, "two")
        await command.archive(await command.by_number(4), path, silent)
        await record(self, *arguments)

    monkeypatch.setattr(Archives, "_record", overtaken)


async def test_two_that_overlap(kept: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was so slow that another archive was made meanwhile records nothing: the ledger stays intact, and can be
    archived further."""
    overtaken_by_two(kept, tmp_path / "two", monkeypatch, lambda: kept.clock.advance(2 * archives.LEASE_LIFETIME))
    with pytest.raises(LeaseLost):
        await made(kept, 3, tmp_path / "one")
    await still_whole(kept, tmp_path)


async def test_two_that_overlap_under_one_lease(kept: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the unit record one, whatever the leases say, if another was recorded since it began."""
    lease = await kept.store.acquire_lease(archives.LEASE, "any", archives.LEASE_LIFETIME, kept.clock())
    assert lease

    async def held(*arguments: Any) -> Lease:
        return lease

    with monkeypatch.context() as patched:
        patched.setattr(Archives, "_lease", held)
        patched.setattr(Archives, "_renew", held)
        overtaken_by_two(kept, tmp_path / "two", monkeypatch)
        with pytest.raises(ArchiveRefused, match="meanwhile"):
            await made(kept, 3, tmp_path / "one")
    await still_whole(kept, tmp_path)


async def still_whole(kept: Ledger, folder: Path) -> None:
    assert await kept.is_intact()
    await kept.grow(30)
    await kept.notary.run()
    await made(kept, 5, folder / "next")
    assert await kept.is_intact()


async def test_the_lease_is_kept_while_the_file_is_verified(
    kept: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that takes, nobody else begins."""
    acquire, check, renewed = kept.store.acquire_lease, exports.verify, threading.Event()

    async def acquired(*arguments: Any) -> Lease | None:
        lease = await acquire(*arguments)
        renewed.set()
        return lease

    def slowly(*arguments: Any, **options: Any) -> exports.Verified:
        for _ in range(6):  # thirds: the renewal that is heard of may have begun a step earlier
            kept.clock.advance(archives.LEASE_LIFETIME / 3)
            renewed.clear()
            assert renewed.wait(30)
        return check(*arguments, **options)

    monkeypatch.setattr(archives, "RENEWED_EVERY", timedelta(milliseconds=1))
    monkeypatch.setattr(kept.store, "acquire_lease", acquired)
    monkeypatch.setattr(exports, "verify", slowly)
    await made(kept, 3, tmp_path / "one")
    lease = await acquire(archives.LEASE, "two", archives.LEASE_LIFETIME, kept.clock())
    assert lease
    assert lease.fence == 2


@pytest.mark.parametrize("earlier", [None, 1])
async def test_a_file_that_was_lost(
    kept: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: int | None
) -> None:
    """While no row that it holds was deleted, another file may take its place, which reaches as far; then no more."""
    if earlier:
        await made(kept, earlier, tmp_path / "earlier")
    before = await kept.rows()
    with monkeypatch.context() as patched:
        patched.setattr(Archives, "_delete", killed)
        with pytest.raises(Killed):
            await made(kept, 3, tmp_path / "lost")
    (tmp_path / "lost").unlink()
    with pytest.raises(ArchiveRefused, match="already"):
        await carried_out(archiving(kept), tmp_path / "two", 2, None, lambda done, total: None)
    archive = await carried_out(archiving(kept), tmp_path / "two", 3, None, lambda done, total: None)
    assert verify(tmp_path / "two").first == before[0].sequence
    assert (await kept.rows())[0].sequence == archive.sequence + 1
    assert await kept.is_intact()


async def test_a_file_that_was_lost_too_late(kept: Ledger, tmp_path: Path) -> None:
    """Once rows are nowhere but in the file, the archive isn't ended without it."""
    before = await kept.rows()
    archive = await made(kept, 3, tmp_path / "one")
    await kept.replace_all([*before[5 : archive.sequence], *(await after(kept, archive.sequence))], head=False)
    for number in (3, 4):
        with pytest.raises(ArchiveRefused, match=archive.file):
            await carried_out(archiving(kept), tmp_path / "two", number, None, lambda done, total: None)
        with pytest.raises(ArchiveRefused, match=archive.file):
            await made(kept, number, tmp_path / "two")
    await carried_out(archiving(kept), tmp_path / "one", 3, None, lambda done, total: None)
    assert await kept.is_intact()


async def test_one_deletes_at_a_time(kept: Ledger, tmp_path: Path) -> None:
    """Who lost the lease while it deleted rows stops, and who doesn't get it doesn't begin; the ledger stays intact."""

    def told(what: str, done: int, total: int) -> None:
        if what == "deleting":
            kept.clock.advance(archives.LEASE_LIFETIME)

    command, path = archiving(kept), tmp_path / "one"
    with pytest.raises(LeaseLost):
        await command.archive(await command.by_number(3), path, told)
    pending = await command.pending()
    assert pending
    left = await kept.rows()
    lease = await kept.store.acquire_lease(archives.LEASE, "two", archives.LEASE_LIFETIME, kept.clock())
    assert lease
    with pytest.raises(ArchiveRefused, match="Another"):
        await command.resume(pending, path, silent)
    assert await kept.rows() == left
    assert await kept.is_intact()
    await kept.store.release_lease(lease)
    await command.resume(pending, path, silent)
    assert (await kept.rows())[0].sequence == pending.sequence + 1
