"""Archives, on both stores: what is moved to a file verifies there, and what is left verifies here."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from artstore_grpc import audit, checkpoints, exports, ledger
from artstore_grpc.archives import ArchiveRefused, digest_of
from artstore_grpc.checkpoints import Archive
from artstore_grpc.errors import FailedPrecondition
from artstore_grpc.ledger import LedgerBroken
from artstore_grpc.records import EventKind, LedgerRow
from artstore_grpc.verification import Broken
from tests.archives.stand import KEPT, after, archiving, made, parts, there, verify
from tests.auditing import Ledger, rechained
from tests.store.samples import event
from tests.test_verification import altered


async def test_what_is_archived(kept: Ledger, tmp_path: Path) -> None:
    """The file holds the rows up to the checkpoint and verifies alone, the rest verifies from there on; both together
    are the ledger as it was, and the ledger records the file's digest."""
    before, path = await kept.rows(), tmp_path / "one.jsonl"
    archive = await made(kept, 2, path)
    found = verify(path)
    assert (found.first, found.last, found.checkpoints) == (1, (archive.sequence, archive.hash), 2)
    left = await kept.rows()
    with path.open("rb") as file:
        moved = [value for kind, value in exports.read(file) if kind == "row"]
    assert moved + left[:-1] == before
    assert left[0].previous_hash == archive.hash
    assert await kept.is_intact()
    assert left[-1].kind == EventKind.LEDGER_ARCHIVED
    assert left[-1].parsed()["sha256"] == digest_of(path) == archive.file
    assert not parts(tmp_path)


async def test_one_after_the_other(kept: Ledger, tmp_path: Path) -> None:
    """A second archive begins where the first ended, and verifies alone too."""
    first = await made(kept, 1, tmp_path / "one")
    second = await made(kept, 3, tmp_path / "two")
    found = verify(tmp_path / "two")
    assert (found.first, found.last) == (first.sequence + 1, (second.sequence, second.hash))
    assert await kept.is_intact()
    await kept.grow(30)
    await kept.notary.run()
    assert await kept.is_intact()
    with pytest.raises(ArchiveRefused, match="already"):
        await made(kept, 2, tmp_path / "three")


async def test_tampering_with_what_is_left(kept: Ledger, tmp_path: Path) -> None:
    """After an archive as before it: any field of any row that is left, altered, is named; so is a row deleted from its
    beginning, and a checkpoint of the archived rows."""
    await made(kept, 3, tmp_path / "one")
    left = await kept.rows()
    for row in left[:-1]:
        for column in ("actor", "hash", "previous_hash", "time"):
            await kept.alter(row.sequence, **{column: altered(row)[column]})
            assert (await kept.found())[0] == row.sequence, (row.sequence, column)
            await kept.alter(row.sequence, **{column: getattr(row, column)})
    for number in (1, 2, 3, 4):
        (checkpoint,) = await kept.store.checkpoints(number - 1, 1)
        await kept.alter_checkpoint(number, hash=b"\x01" * 32)
        assert (await kept.found())[1] == number
        await kept.alter_checkpoint(number, hash=checkpoint.hash)
    assert await kept.is_intact()
    for column in ("detail", "hash", "time"):
        await kept.alter(left[-1].sequence, **{column: altered(left[-1])[column]})
        assert (await kept.found())[0] == left[-1].sequence
        await kept.alter(left[-1].sequence, **{column: getattr(left[-1], column)})
    await kept.remove(left[0].sequence)
    assert (await kept.found())[0] == left[0].sequence


async def test_rows_gone_without_an_archive(kept: Ledger) -> None:
    """An intruder who deletes old rows, even up to a checkpoint, is found: the record of an archive is signed."""
    second = (await kept.store.checkpoints(1, 1))[0]
    await kept.store.delete_ledger(second.sequence, 1000)
    assert (await kept.found())[0] == 1
    archive = Archive(2, second.sequence, second.hash, "")
    record = checkpoints.archive_record(checkpoints.generate(), archive)
    async with kept.store.unit() as unit:
        unit.record(event(kind=EventKind.LEDGER_ARCHIVED, detail={"record": record}))
    assert (await kept.found())[0] == (await kept.store.head())[0]


def forged(before: LedgerRow, count: int) -> list[LedgerRow]:
    """Rows that follow from each other, and from nothing that ever was."""
    made: list[LedgerRow] = []
    head = (before.sequence, b"\x01" * 32)
    for number in range(count):
        made.append(ledger.append(head, event(f"forged {number}")))
        head = (made[-1].sequence, made[-1].hash)
    return made


@pytest.mark.parametrize("max_rows", [3, 4, 1000])
async def test_rows_forged_where_rows_were_archived(kept: Ledger, tmp_path: Path, max_rows: int) -> None:
    """Rows put among those that were archived are found, also where one call ends with the last of them: what is left
    of a ledger goes on without a gap."""
    before = await kept.rows()
    archive = await made(kept, 3, tmp_path / "one")
    for at in (4, archive.sequence - 4):
        put = forged(before[at - 1], 3)
        await kept.replace_all([*put, *(await after(kept, archive.sequence))], head=False)
        assert (await found_in_stretches(kept, max_rows)) == (put[-1].sequence + 1, 0)
    await kept.replace_all(await after(kept, archive.sequence))
    assert await kept.is_intact()


async def found_in_stretches(kept: Ledger, max_rows: int) -> tuple[int, int] | None:
    """The row and the checkpoint that are named by the first of the calls that finds something; None: none does."""
    start = ledger.GENESIS
    while True:
        verified = await kept.verify(start=start, max_rows=max_rows)
        if verified.broken or not verified.more:
            return (verified.broken.sequence, verified.broken.checkpoint) if verified.broken else None
        start = verified.last


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5])
async def test_more_checkpoints_than_one_call_takes(
    kept: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Wherever the checkpoints of one call end, among archived rows or those that are left, the next goes on there."""
    await made(kept, 3, tmp_path / "one")
    monkeypatch.setattr(audit, "MAX_CHECKPOINTS", most)
    assert await found_in_stretches(kept, 1000) is None
    last = (await kept.rows())[-1].sequence
    await kept.alter(last - 2, actor="somebody else")
    assert await found_in_stretches(kept, 1000) == (last - 2, 0)


async def test_a_verification_overtaken(kept: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that an archive deletes from under a verification's feet are no finding: it begins again after them."""
    before = await kept.rows()
    archive = await made(kept, 3, tmp_path / "one")
    await kept.replace_all([*before[: archive.sequence], *(await after(kept, archive.sequence))])
    monkeypatch.setattr(audit, "BATCH", 4)
    read = kept.store.ledger

    async def overtaken(after: int, limit: int) -> list[LedgerRow]:
        if after == 8:
            await kept.store.delete_ledger(archive.sequence, 1000)
        return await read(after, limit)

    monkeypatch.setattr(kept.store, "ledger", overtaken)
    verified = await kept.verify()
    left = await kept.rows()
    assert left[0].sequence == archive.sequence + 1
    assert (verified.broken, verified.last, verified.rows) == (None, await kept.store.head(), len(left))


async def test_a_published_head_that_was_archived(kept: Ledger, tmp_path: Path) -> None:
    """The head of an archived checkpoint can still be compared; one between needs the archive, and it is said so."""
    before = await kept.rows()
    await made(kept, 3, tmp_path / "one")
    first = (await kept.store.checkpoints(0, 1))[0]
    assert (await kept.verify(published=(first.sequence, first.hash))).broken is None
    assert await kept.found(published=(first.sequence, b"\x01" * 32)) == (first.sequence, 0)
    with pytest.raises(FailedPrecondition) as refused:
        await kept.verify(published=(5, before[4].hash))
    assert refused.value.reason == "HEAD_ARCHIVED"
    with (tmp_path / "one").open("rb") as file:
        exports.verify(file, published=(5, before[4].hash))


async def test_a_verification_meanwhile(kept: Ledger, tmp_path: Path) -> None:
    """Between two batches of an archive's deletions a verification finds nothing wrong, from wherever it goes on."""
    before = await kept.rows()
    archive = await made(kept, 3, tmp_path / "one")
    for left in range(archive.sequence + 1):
        await kept.replace_all([*before[left : archive.sequence], *(await after(kept, archive.sequence))], head=False)
        for start in (0, 5, left):
            head = (start, before[start - 1].hash) if start else (0, bytes(32))
            assert (await kept.verify(start=head)).broken is None, (left, start)


async def test_what_is_broken_is_not_archived(kept: Ledger, tmp_path: Path) -> None:
    """A ledger that doesn't hold is neither written nor deleted."""
    await kept.alter(15, actor="somebody else")
    with pytest.raises(LedgerBroken):
        await made(kept, 3, tmp_path / "one")
    await kept.replace_all(rechained(await kept.rows(), 15, actor="somebody"))
    with pytest.raises(Broken):
        await made(kept, 3, tmp_path / "one")
    assert not there(tmp_path / "one")
    assert not parts(tmp_path)
    assert len(await kept.rows()) > 60


async def test_what_may_not_be_archived(kept: Ledger, tmp_path: Path) -> None:
    """The newest rows stay, whichever way the checkpoint is chosen; one that isn't there is refused."""
    for number, sentence in ((5, "too new"), (6, "too new"), (9, "no checkpoint 9")):
        with pytest.raises(ArchiveRefused, match=sentence):
            await archiving(kept).by_number(number)
    with pytest.raises(ArchiveRefused, match="that old"):
        await archiving(kept).older_than(timedelta(days=90))
    kept.clock.advance(timedelta(days=90))
    assert (await archiving(kept).older_than(timedelta(days=90))).number == 4
    newest = await kept.store.last_checkpoint()
    assert newest
    assert newest.sequence - (await archiving(kept).by_number(4)).sequence >= KEPT
