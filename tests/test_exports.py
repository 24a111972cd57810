"""Exports: what is written is read back to the byte, and verified by an outsider who has only docs/ledger.md."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from artstore_grpc import checkpoints, exports, ledger
from artstore_grpc.checkpoints import CheckpointBroken
from artstore_grpc.exports import Malformed
from artstore_grpc.ledger import LedgerBroken
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.verification import Broken
from tests.auditing import Ledger, signing_every
from tests.store.samples import event


@pytest_asyncio.fixture
async def kept(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    signing_every(monkeypatch)
    made = await Ledger(store).filled()
    async with store.unit() as unit:
        unit.record(event("ünïcode ✓", actor="a\nb", detail={"text": "ä\u2028", "number": 1.5}))
        unit.record(event(time=datetime(2030, 1, 1, tzinfo=UTC), detail={}))
        unit.record(event(time=datetime(2030, 1, 1, 23, 59, 59, 999999, tzinfo=UTC), detail={}))
    return made


AT_THE_BEGINNING_OF_TIME = {
    **dict.fromkeys(("actor", "kind", "subject", "detail", "previous_hash", "hash"), ""),
    "sequence": 1,
    "time": "0001-01-01T00:00:00+23:59",
}


async def exported(kept: Ledger) -> bytes:
    """The whole ledger as a file."""
    file = io.BytesIO()
    signed = await kept.store.checkpoints(0, 100)
    file.write(exports.format_line())
    for jwk in await kept.audit.ledger_keys():
        file.write(exports.key_line(jwk))
    writer = exports.Writer(file, signed)
    for row in await kept.rows():
        if not writer.write(row):
            break
    writer.end()
    return file.getvalue()


def verify(content: bytes, **options: Any) -> exports.Verified:
    return exports.verify(io.BytesIO(content), **options)


def changed(content: bytes, kind: str, number: int, **values: Any) -> bytes:
    """The file with one line of a kind changed."""
    lines = [json.loads(line) for line in content.splitlines()]
    of_kind = [line for line in lines if kind in line]
    of_kind[number][kind] |= values
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


def without(content: bytes, kind: str, number: int) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[[at for at, line in enumerate(lines) if kind in json.loads(line)][number]]
    return b"".join(lines)


async def test_what_is_written_is_read(kept: Ledger) -> None:
    """Rows, checkpoints and times come back as they were stored, and the file leads to the ledger's head."""
    content = await exported(kept)
    lines = list(exports.read(io.BytesIO(content)))
    assert [value for kind, value in lines if kind == "row"] == await kept.rows()
    assert [value for kind, value in lines if kind == "checkpoint"] == await kept.store.checkpoints(0, 100)
    found = verify(content)
    assert (found.first, found.last, found.checkpoints) == (1, await kept.store.head(), 3)


async def test_the_known_key_can_be_demanded(kept: Ledger) -> None:
    """With the one key that is trusted, a file signed by any other is broken."""
    content, ((kid, _),) = await exported(kept), (await kept.notary.keys()).items()
    assert verify(content, kid=kid).kids == (kid,)
    with pytest.raises(CheckpointBroken):
        verify(content, kid="another")


async def test_a_file_that_the_known_key_signed_nothing_of(kept: Ledger) -> None:
    """With the key that is trusted, a file without a checkpoint is broken, though its chain holds and its key is there;
    of any other it is said up to which row a checkpoint vouches for it."""
    content, ((kid, _),) = await exported(kept), (await kept.notary.keys()).items()
    (*_, last) = await kept.store.checkpoints(0, 100)
    assert verify(content, kid=kid).vouched == last.sequence < verify(content).last[0]
    row = exports.row_line(ledger.append(ledger.GENESIS, event("forged")))
    forged = b"".join([*content.splitlines(keepends=True)[:2], row, exports.end_line(1, 0)])
    assert (verify(forged).rows, verify(forged).vouched) == (1, 0)
    with pytest.raises(CheckpointBroken) as broken:
        verify(forged, kid=kid)
    assert broken.value.number == 1
    assert kid in str(broken.value)


@pytest.mark.parametrize("number", [0, 15, -1])
async def test_a_row_altered_or_removed(kept: Ledger, number: int) -> None:
    """Any row of the file that was altered or removed is named."""
    content, written = await exported(kept), await kept.rows()
    for values in ({"actor": "x"}, {"detail": "{}  "}, {"time": "2030-01-01T00:00:00.000001Z"}, {"hash": "00" * 32}):
        with pytest.raises(LedgerBroken) as broken:
            verify(changed(content, "row", number, **values))
        assert broken.value.sequence == written[number].sequence
    with pytest.raises((*Broken, Malformed)):
        verify(without(content, "row", number))


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_a_checkpoint_altered_or_removed(kept: Ledger, number: int) -> None:
    """Any checkpoint of the file that was altered or removed is named."""
    content = await exported(kept)
    for broken_file in (changed(content, "checkpoint", number, hash="00" * 32), without(content, "checkpoint", number)):
        with pytest.raises(CheckpointBroken) as broken:
            verify(broken_file)
        assert broken.value.number == number + 1


async def test_a_file_cut_short(kept: Ledger) -> None:
    """Cut anywhere, a file is refused: at the end of a line too, since its last line is missing."""
    content = await exported(kept)
    for length in [*range(0, len(content) - 1, 997), len(content) - 1]:
        with pytest.raises(Malformed):
            verify(content[:length])
    for kind in ("row", "end"):
        with pytest.raises(Malformed):
            verify(content + exports.line(kind, json.loads(exports.row_line((await kept.rows())[0]))["row"]))


async def test_a_published_head(kept: Ledger) -> None:
    """The file leads to every head that was ever published, and to no other."""
    content, written = await exported(kept), await kept.rows()
    assert verify(content, published=(20, written[19].hash)).rows == len(written)
    for published, named in (((20, b"\x01" * 32), 20), ((len(written) + 9, written[19].hash), len(written) + 1)):
        with pytest.raises(LedgerBroken) as broken:
            verify(content, published=published)
        assert broken.value.sequence == named


async def test_rows_missing_at_the_beginning(kept: Ledger) -> None:
    """A file that begins later needs the signed record of an archive that says so."""
    content, written = await exported(kept), await kept.rows()
    (key,) = (await kept.notary.keys()).values()
    later = content
    for _ in range(12):
        later = without(later, "row", 0)
    later = changed(later, "end", 0, rows=len(written) - 12)
    with pytest.raises(LedgerBroken) as broken:
        verify(later)
    assert broken.value.sequence == 1
    signed = (await kept.store.checkpoints(0, 1))[0]
    enough = checkpoints.Archive(2, 24, written[23].hash, "")
    short = checkpoints.Archive(1, signed.sequence, signed.hash, "")
    header, keys, rest = later.split(b"\n", 2)
    for archive, intact in ((enough, True), (short, False)):
        record = exports.archive_line(checkpoints.archive_record(key, archive))
        file = header + b"\n" + keys + b"\n" + record + rest
        if intact:
            assert verify(file).first == 13
        else:
            with pytest.raises(LedgerBroken):
                verify(file)
    other = exports.archive_line(checkpoints.archive_record(checkpoints.generate(), enough))
    with pytest.raises(Malformed):
        verify(header + b"\n" + keys + b"\n" + other + rest)


@pytest.mark.parametrize("place", ["before the rows", "among them"])
async def test_rows_cut_out_where_rows_were_archived(kept: Ledger, place: str) -> None:
    """The signed record of a later archive hides no row that was cut out of an older export: it explains rows that are
    gone from the beginning, and stands before the first."""
    content, (key,) = await exported(kept), (await kept.notary.keys()).values()
    signed = (await kept.store.checkpoints(1, 1))[0]
    lines = content.splitlines(keepends=True)
    gone = range(7, signed.sequence + 1)
    lines = [each for each in lines if json.loads(each).get("row", {}).get("sequence") not in gone]
    record = checkpoints.archive_record(key, checkpoints.Archive(2, signed.sequence, signed.hash, ""))
    lines.insert(2 if place == "before the rows" else 8, exports.archive_line(record))
    cut = changed(b"".join(lines), "end", 0, rows=len(await kept.rows()) - len(gone))
    if place == "among them":
        with pytest.raises(Malformed):
            verify(cut)
    else:
        with pytest.raises(LedgerBroken) as broken:
            verify(cut)
        assert broken.value.sequence == 7


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"\xff\n",
        b'{"a":1,"b":2}\n',
        b'{"row":{}}\n',
        b'{"row":null}\n',
        exports.line("row", AT_THE_BEGINNING_OF_TIME),
        b'{"row":[]}\n',
        b'{"checkpoint":{"number":true}}\n',
        b'{"ledger_key":[]}\n',
        b'{"ledger_key":{}}\n',
        b'{"archive":1}\n',
        b'{"other":1}\n',
        b'{"end":{"rows":0,"checkpoints":1}}\n',
        b"[" * 100_000 + b"\n",
        b'{"format":"artstore-ledger-export-1"}\n',
    ],
    ids=lambda line: repr(line[:40]),
)
def test_lines_that_are_none(line: bytes) -> None:
    """What is no line of an export is refused in one sentence, never an unexpected error."""
    with pytest.raises(Malformed):
        verify(exports.format_line() + line)


def test_another_format() -> None:
    """A file of another format, or of none, is refused at its first line."""
    for content in (b"", b'{"format":"artstore-ledger-export-2"}\n', exports.key_line({}), b"x"):
        with pytest.raises(Malformed):
            verify(content)


# An outsider: written from docs/ledger.md alone, with nothing of the program.


def field(value: bytes) -> bytes:
    return len(value).to_bytes(8, "big") + value


def outsiders_hash(row: dict[str, Any]) -> str:
    time = datetime.strptime(row["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    microseconds = (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    hashed = field(b"artstore-ledger-1")
    hashed += field(row["sequence"].to_bytes(8, "big", signed=True))
    hashed += field(microseconds.to_bytes(8, "big", signed=True))
    for name in ("actor", "kind", "subject", "detail"):
        hashed += field(row[name].encode())
    return hashlib.sha256(hashed + field(bytes.fromhex(row["previous_hash"]))).hexdigest()


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def outsiders_verification(content: bytes) -> tuple[int, int]:
    """How many rows and checkpoints hold."""
    keys: dict[str, bytes] = {}
    last = {"sequence": 0, "hash": "00" * 32}
    before, rows, signed = "", 0, 0
    for kind, value in (next(iter(json.loads(line).items())) for line in content.splitlines()):
        if kind == "ledger_key":
            keys[value["kid"]] = unpadded(value["x"])
        elif kind == "row":
            assert value["sequence"] == last["sequence"] + 1
            assert value["previous_hash"] == last["hash"]
            assert value["hash"] == outsiders_hash(value)
            last, rows = value, rows + 1
        elif kind == "checkpoint":
            header, payload, signature = value["signature"].split(".")
            head, claims = json.loads(unpadded(header)), json.loads(unpadded(payload))
            assert (head["alg"], head["typ"]) == ("Ed25519", "ledger-checkpoint+jwt")
            key = Ed25519PublicKey.from_public_bytes(keys[head["kid"]])
            key.verify(unpadded(signature), f"{header}.{payload}".encode())
            assert (claims["number"], claims["sequence"]) == (signed + 1, last["sequence"])
            assert unpadded(claims["hash"]).hex() == last["hash"]
            assert claims["previous"] == before
            digest = hashlib.sha256(value["signature"].encode()).digest()
            before, signed = base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), signed + 1
    return rows, signed


async def test_an_outsider_verifies_it(kept: Ledger) -> None:
    """Who knows only the documented format comes to the same answer, and notices the same alterations."""
    content = await exported(kept)
    found = verify(content)
    assert outsiders_verification(content) == (found.rows, found.checkpoints)
    with pytest.raises(AssertionError):
        outsiders_verification(changed(content, "row", 7, actor="x"))
    (signed, *_) = await kept.store.checkpoints(0, 1)
    header, payload, _ = signed.signature.split(".")
    with pytest.raises(InvalidSignature):
        outsiders_verification(changed(content, "checkpoint", 0, signature=f"{header}.{payload}.{'A' * 86}"))
