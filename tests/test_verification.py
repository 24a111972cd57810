"""What the verification of a ledger finds, on both stores: each alteration is made by raw SQL, found, and named."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, text, update

from artstore_grpc import audit, checkpoints, ledger
from artstore_grpc.audit import head_of
from artstore_grpc.errors import InvalidRequest, Overloaded
from artstore_grpc.notary import sealed_key
from artstore_grpc.records import Checkpoint, EventKind, LedgerRow
from artstore_grpc.store import rows, tables
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import Vault, new_root
from tests.auditing import EVERY, Ledger, rechained, signing_every
from tests.store.samples import event

OTHER_HASH = b"\x01" * 32


@pytest_asyncio.fixture
async def kept(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger with three checkpoints, the third's rows not the last."""
    signing_every(monkeypatch)
    return await Ledger(store).filled()


def altered(row: LedgerRow) -> dict[str, Any]:
    """Another value for each column."""
    return {
        "sequence": row.sequence + 1000,
        "time": row.time + timedelta(microseconds=1),
        "actor": row.actor + "x",
        "kind": "account.deleted",
        "subject": row.subject + "x",
        "detail": row.detail + " ",
        "previous_hash": OTHER_HASH,
        "hash": OTHER_HASH,
    }


async def test_an_intact_ledger(kept: Ledger) -> None:
    """Nothing is found where nothing was altered; every row and checkpoint was looked at, up to the stored head."""
    verified = await kept.verify()
    assert (verified.broken, verified.more, verified.last) == (None, False, await kept.store.head())
    assert (verified.rows, verified.checkpoints) == (len(await kept.rows()), 3)


async def test_an_empty_ledger(store: SqlStore) -> None:
    """No rows, nothing wrong."""
    verified = await Ledger(store).verify()
    assert (verified.broken, verified.rows, verified.last) == (None, 0, ledger.GENESIS)


async def test_any_field_of_any_row(kept: Ledger) -> None:
    """Every column of every row, altered alone: the row is named."""
    for row in await kept.rows():
        for column, value in altered(row).items():
            await kept.alter(row.sequence, **{column: value})
            assert (await kept.found())[0] == row.sequence, (row.sequence, column)
            at = value if column == "sequence" else row.sequence
            await kept.alter(at, **{column: getattr(row, column)})
    assert await kept.is_intact()


async def test_values_of_another_type(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite stores anything in any column: what can't be read as its column is named like any alteration."""
    signing_every(monkeypatch)
    kept = await Ledger(SqlStore(sqlite_url)).filled()
    for column in ("time", "detail", "hash", "actor"):
        (before,) = await kept.store._database.rows(text(f"SELECT {column} FROM ledger WHERE sequence = 7"))
        for other in (b"\xff\xfe", "nonsense", 5):
            await kept.execute(text(f"UPDATE ledger SET {column} = :v WHERE sequence = 7").bindparams(v=other))
            assert (await kept.found())[0] == 7, (column, other)
        await kept.execute(text(f"UPDATE ledger SET {column} = :v WHERE sequence = 7").bindparams(v=before[0]))
    assert await kept.is_intact()
    for column in ("time", "hash", "signature", "kid"):
        (before,) = await kept.store._database.rows(text(f"SELECT {column} FROM checkpoints WHERE number = 2"))
        for other in (b"\xff\xfe", "nonsense", 5):
            await kept.execute(text(f"UPDATE checkpoints SET {column} = :v WHERE number = 2").bindparams(v=other))
            assert (await kept.found())[1] == 2, (column, other)
        await kept.execute(text(f"UPDATE checkpoints SET {column} = :v WHERE number = 2").bindparams(v=before[0]))
    assert await kept.is_intact()
    await kept.store.close()


@pytest.mark.parametrize("which", ["first", "middle", "signed by a checkpoint", "last"])
async def test_a_row_deleted(kept: Ledger, which: str) -> None:
    """Wherever it was, the row that is missing is named."""
    written, (checkpoint, *_) = await kept.rows(), await kept.store.checkpoints(0, 1)
    sequence = {"first": 1, "middle": 15, "signed by a checkpoint": checkpoint.sequence, "last": len(written)}[which]
    await kept.remove(sequence)
    assert (await kept.found())[0] == sequence


async def test_two_rows_swapped(kept: Ledger) -> None:
    """Two rows that changed places: the first of the two places is named."""
    written = await kept.rows()
    for one, other in pairwise(written[4:9]):
        swapped = [replace(row) for row in written]
        swapped[one.sequence - 1] = replace(other, sequence=one.sequence)
        swapped[other.sequence - 1] = replace(one, sequence=other.sequence)
        await kept.replace_all(swapped)
        assert (await kept.found())[0] == one.sequence


@pytest.mark.parametrize("hashes", ["its own", "made anew"])
async def test_a_row_inserted(kept: Ledger, hashes: str) -> None:
    """A row put between others, those after it moved up: found at once, or by the checkpoint that follows."""
    written = await kept.rows()
    forged = replace(written[4], sequence=6, subject="forged", previous_hash=written[4].hash)
    forged = replace(forged, hash=ledger.row_hash(forged))
    inserted = [*written[:5], forged, *(replace(row, sequence=row.sequence + 1) for row in written[5:])]
    await kept.replace_all(inserted if hashes == "its own" else rechained(inserted, 0))
    assert await kept.found() == ((7, 0) if hashes == "its own" else (11, 1))


@pytest.mark.parametrize(("row", "checkpoint"), [(1, 1), (5, 1), (14, 2), (24, 3)])
async def test_the_chain_rewritten(kept: Ledger, row: int, checkpoint: int) -> None:
    """Every hash made anew from some row on: the next checkpoint is named, and the row it vouches for."""
    signed = await kept.store.checkpoints(0, 10)
    await kept.replace_all(rechained(await kept.rows(), row, actor="somebody else"))
    assert await kept.found() == (signed[checkpoint - 1].sequence, checkpoint)


def checkpoint_altered(checkpoint: Checkpoint) -> dict[str, Any]:
    body, _, _ = checkpoint.signature.rpartition(".")
    return {
        "number": checkpoint.number + 1000,
        "sequence": checkpoint.sequence + 1,
        "hash": OTHER_HASH,
        "time": checkpoint.time + timedelta(microseconds=1),
        "kid": "another",
        "signature": f"{body}.{'A' * 86}",
    }


async def test_any_field_of_any_checkpoint(kept: Ledger) -> None:
    """Every column of every checkpoint, altered alone: the checkpoint is named, by the number it had or has now."""
    for checkpoint in await kept.store.checkpoints(0, 10):
        for column, value in checkpoint_altered(checkpoint).items():
            await kept.alter_checkpoint(checkpoint.number, **{column: value})
            named = (await kept.found())[1]
            at = value if column == "number" else checkpoint.number
            assert named in (checkpoint.number, at), (checkpoint.number, column)
            await kept.alter_checkpoint(at, **{column: getattr(checkpoint, column)})
    assert await kept.is_intact()


@pytest.mark.parametrize("sequence", [-1000, 0, 1, 5, 15, 1000])
async def test_a_checkpoint_moved(kept: Ledger, sequence: int) -> None:
    """A checkpoint made to vouch for any other row is found, wherever it went."""
    for checkpoint in await kept.store.checkpoints(0, 10):
        await kept.alter_checkpoint(checkpoint.number, sequence=sequence)
        assert (await kept.found())[1] == checkpoint.number
        await kept.alter_checkpoint(checkpoint.number, sequence=checkpoint.sequence)


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_checkpoint_deleted(kept: Ledger, number: int) -> None:
    """The first, one in the middle, the last: the ledger's own rows miss it."""
    await kept.remove_checkpoint(number)
    assert (await kept.found())[1] == number


async def test_two_checkpoints_swapped(kept: Ledger) -> None:
    """Two whole checkpoints that changed places are not what was signed for those places."""
    one, other, _ = await kept.store.checkpoints(0, 10)
    columns = ("hash", "time", "kid", "signature", "sequence")
    await kept.alter_checkpoint(one.number, **{name: getattr(other, name) for name in columns})
    await kept.alter_checkpoint(other.number, **{name: getattr(one, name) for name in columns})
    assert (await kept.found())[1] in (1, 2)


@pytest.mark.parametrize("known", ["not stored", "stored in the clear", "sealed under another key"])
async def test_a_checkpoint_signed_by_another_key(kept: Ledger, known: str) -> None:
    """An intruder's own key signs nothing: to be trusted it would have to be sealed under the key-encryption key."""
    before, checkpoint, _ = await kept.store.checkpoints(0, 10)
    pair = checkpoints.generate()
    forged = checkpoints.made(pair, 2, (checkpoint.sequence, checkpoint.hash), checkpoint.time, before)
    await kept.alter_checkpoint(2, kid=forged.kid, signature=forged.signature)
    key = sealed_key(Vault(new_root()), pair, checkpoint.time)
    if known != "not stored":
        key = key if known.startswith("sealed") else replace(key, sealed=b'{"kty":"OKP"}')
        await kept.execute(insert(tables.ledger_keys).values(rows.ledger_key_values(key)))
    assert (await kept.found())[1] == 2


async def test_a_foreign_signature_of_another_kind(kept: Ledger) -> None:
    """What the ledger's key has signed for another purpose is no checkpoint."""
    (key,) = (await kept.notary.keys()).values()
    record = checkpoints.archive_record(key, checkpoints.Archive(1, 10, OTHER_HASH, ""))
    await kept.alter_checkpoint(2, signature=record)
    assert (await kept.found())[1] == 2


async def cut(kept: Ledger, sequence: int, *, checkpoints_too: bool) -> None:
    """Cuts everything off after a row, and sets the head back, as it was then."""
    if checkpoints_too:
        for checkpoint in await kept.store.checkpoints(0, 10):
            if checkpoint.sequence >= sequence:
                await kept.remove_checkpoint(checkpoint.number)
    await kept.replace_all((await kept.rows())[:sequence])


async def test_the_tail_cut_off(kept: Ledger) -> None:
    """Rows after the last checkpoint, with the head: found against a published head, and, as documented, only so."""
    published = await kept.store.head()
    (*_, last) = await kept.store.checkpoints(0, 10)
    await cut(kept, last.sequence + 1, checkpoints_too=False)
    assert await kept.is_intact()
    assert await kept.found(published=published) == (last.sequence + 2, 0)


async def test_the_tail_cut_off_with_its_checkpoints(kept: Ledger) -> None:
    """With the checkpoints of what was cut off too: found against a head that any of them has published."""
    _, second, _ = await kept.store.checkpoints(0, 10)
    await cut(kept, 15, checkpoints_too=True)
    assert await kept.is_intact()
    assert await kept.found(published=(second.sequence, second.hash)) == (16, 0)


async def test_the_tail_cut_off_without_its_checkpoints(kept: Ledger) -> None:
    """A checkpoint that was left misses its row."""
    await cut(kept, 15, checkpoints_too=False)
    assert (await kept.found())[0] == 16


async def test_the_tail_rewritten(kept: Ledger) -> None:
    """Rows after the last checkpoint, with every hash made anew: another hash than the published one."""
    sequence, digest = await kept.store.head()
    await kept.replace_all(rechained(await kept.rows(), sequence - 1, actor="somebody else"))
    assert await kept.is_intact()
    assert await kept.found(published=(sequence, digest)) == (sequence, 0)


async def test_every_published_head_is_led_to(kept: Ledger) -> None:
    """A head that was once the ledger's is found again, whichever; one with another hash isn't."""
    for row in await kept.rows():
        assert (await kept.verify(published=(row.sequence, row.hash))).broken is None
        assert await kept.found(published=(row.sequence, OTHER_HASH)) == (row.sequence, 0)


@pytest.mark.parametrize(("sequence", "named"), [(-1, 0), (1, 1)])
async def test_the_stored_head(kept: Ledger, sequence: int, named: int) -> None:
    """A head that isn't the last row's is found: set back, set forward, or with another hash."""
    last, digest = await kept.store.head()
    await kept.execute(update(tables.ledger_head).values(sequence=last + sequence))
    assert await kept.found() == (last + named, 0)
    await kept.execute(update(tables.ledger_head).values(sequence=last, hash=OTHER_HASH))
    assert await kept.found() == (last, 0)
    await kept.execute(update(tables.ledger_head).values(hash=digest))
    assert await kept.is_intact()


@pytest.mark.parametrize("size", [1, 7, 10, 1000])
async def test_in_stretches(kept: Ledger, size: int) -> None:
    """Stretches of any size come to the same end, and find the same things."""
    assert (await stretches(kept, size)) == (len(await kept.rows()), 3, None)
    await kept.alter(20, actor="somebody else")
    assert (await stretches(kept, size))[2] == (20, 0)
    await kept.alter(20, actor="tester")
    await kept.remove_checkpoint(2)
    assert (await stretches(kept, size))[2] == (0, 2)


async def stretches(kept: Ledger, size: int) -> tuple[int, int, tuple[int, int] | None]:
    """Rows, checkpoints and what was found, over all stretches."""
    counted, signed, start = 0, 0, ledger.GENESIS
    while True:
        verified = await kept.verify(start=start, max_rows=size)
        counted, signed, start = counted + verified.rows, signed + verified.checkpoints, verified.last
        if verified.broken:
            return counted, signed, (verified.broken.sequence, verified.broken.checkpoint)
        if not verified.more:
            return counted, signed, None


async def test_a_sequence_from_the_future(kept: Ledger) -> None:
    """Who has verified more than there is has seen a head that the ledger doesn't lead to any more."""
    last, _ = await kept.store.head()
    assert await kept.found(start=(last + 5, OTHER_HASH)) == (last + 1, 0)


READS = ("ledger", "head", "last_checkpoint", "checkpoints_of", "last_ledger_row")


@pytest.mark.parametrize("rows", [1, EVERY])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("reads", [*([each] for each in READS), READS], ids=str)
async def test_rows_that_come_meanwhile(
    kept: Ledger, store_url: str, monkeypatch: pytest.MonkeyPatch, reads: list[str], before: bool, rows: int
) -> None:
    """Rows and checkpoints that are written before or after any read of a verification are no finding: it is about the
    ledger as it began."""
    monkeypatch.setattr(audit, "BATCH", 4)
    writer, last = SqlStore(store_url), (await kept.store.head())[0]
    other = Ledger(writer)
    other.vault = kept.vault
    other.notary = other.another_notary("two")

    def writing(read: Any) -> Any:
        async def and_write(*arguments: Any) -> Any:
            found = None if before else await read(*arguments)
            await other.grow(rows)
            await other.notary.run()
            return await read(*arguments) if before else found

        return and_write

    for name in reads:
        monkeypatch.setattr(kept.store, name, writing(getattr(kept.store, name)))
    verified = await kept.verify()
    assert verified.broken is None
    assert verified.rows >= last
    assert verified.checkpoints >= 3
    await writer.close()


async def test_so_many_at_once(kept: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifications beyond the bound are refused, with the time to wait, and the bound is free again after."""
    kept.audit._running = audit.MAX_VERIFICATIONS
    with pytest.raises(Overloaded) as refused:
        await kept.verify()
    assert refused.value.reason == "TOO_MANY_VERIFICATIONS"
    assert refused.value.retry_after
    kept.audit._running -= 1
    assert await kept.is_intact()
    assert kept.audit._running == audit.MAX_VERIFICATIONS - 1


@pytest.mark.parametrize(("sequence", "hash"), [(-1, b""), (1, b""), (0, OTHER_HASH), (1, OTHER_HASH[1:])])
def test_heads_that_are_none(sequence: int, hash: bytes) -> None:
    """A head is a sequence and its 32 bytes, or neither."""
    with pytest.raises(InvalidRequest):
        head_of(sequence, hash, "after")
    assert head_of(0, b"", "after") is None
    assert head_of(1, OTHER_HASH, "after") == (1, OTHER_HASH)


async def test_what_a_forged_row_of_a_checkpoint_says(kept: Ledger) -> None:
    """A row that records a checkpoint that never was, or one a second time, is found though its hash is right."""
    for detail, named in (({"number": 9, "digest": ""}, (0, 9)), ({"number": 1, "digest": ""}, (0, 1)), ({}, (39, 0))):
        before = await kept.rows()
        async with kept.store.unit() as unit:
            unit.record(event(kind=EventKind.CHECKPOINT_SIGNED, detail=detail))
        found = await kept.found()
        assert found == (named if named[1] else (len(before) + 1, 0))
        await kept.replace_all(before)
