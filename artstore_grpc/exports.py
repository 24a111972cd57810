"""The export format: a ledger, or a stretch of it, in a file that verifies by itself (docs/ledger.md).

JSON lines in UTF-8, each an object with one member that says what it is: `format` first, then `ledger_key`s, `archive`
(the signed record of why the first rows are not here), `row`s in order, each `checkpoint` behind the row it vouches
for, and `end` last, so that a file that was cut short says so. Equal contents are equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO

from joserfc.jwk import OKPKey

from artstore_grpc import checkpoints
from artstore_grpc.checkpoints import CheckpointBroken, NotSigned
from artstore_grpc.ledger import Head
from artstore_grpc.records import Checkpoint, EventKind, LedgerRow
from artstore_grpc.verification import Verification

FORMAT = "artstore-ledger-export-1"
MAX_LINE_BYTES = 16 * 1024 * 1024
"""A row has a few hundred bytes; a longer line is no export's."""
BATCH = 500

Line = tuple[str, Any]
"""What a line is, and what it holds."""


class Malformed(Exception):
    """A file is no export, or was cut short; the message says which line is wrong, and how."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a file holds: the first row (0: none) and the last, counts, and the kids that signed its checkpoints.

    `vouched`: the last row that a checkpoint vouches for (0: none). Anybody may have appended those after it.
    """

    first: int
    last: Head
    rows: int
    checkpoints: int
    vouched: int
    kids: tuple[str, ...]


def format_line() -> bytes:
    return line("format", FORMAT)


def key_line(public_jwk: dict[str, str]) -> bytes:
    return line("ledger_key", public_jwk)


def archive_line(record: str) -> bytes:
    return line("archive", record)


def row_line(row: LedgerRow) -> bytes:
    said = {
        "sequence": row.sequence,
        "time": time_text(row.time),
        "actor": row.actor,
        "kind": row.kind,
        "subject": row.subject,
        "detail": row.detail,
        "previous_hash": row.previous_hash.hex(),
        "hash": row.hash.hex(),
    }
    return line("row", said)


def checkpoint_line(checkpoint: Checkpoint) -> bytes:
    said = {
        "number": checkpoint.number,
        "sequence": checkpoint.sequence,
        "hash": checkpoint.hash.hex(),
        "time": time_text(checkpoint.time),
        "kid": checkpoint.kid,
        "signature": checkpoint.signature,
    }
    return line("checkpoint", said)


def end_line(rows: int, checkpoints: int) -> bytes:
    return line("end", {"rows": rows, "checkpoints": checkpoints})


def line(kind: str, value: Any) -> bytes:
    return json.dumps({kind: value}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def time_text(time: datetime) -> str:
    """RFC 3339 in UTC, with all six digits of the microseconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read(file: BinaryIO) -> Iterator[Line]:
    """The lines of an export, one at a time. Raises Malformed."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        try:
            yield _parsed(raw)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise Malformed(f"Line {number} is no line of an export.") from None


def verify(
    file: BinaryIO, *, kid: str = "", published: Head | None = None, told: Callable[[], object] = lambda: None
) -> Verified:
    """Verifies an export by nothing but itself, holding one batch of it in memory.

    `kid`: the one ledger key to trust, which must have signed a checkpoint; empty: those of the file, which proves only
    that it is in itself whole. `told` is called after each batch. Raises Malformed, and what Verification raises for a
    ledger that is broken.
    """
    return _Reading(kid, published, told).verified(file)


class _Reading:
    """One run through a file."""

    def __init__(self, kid: str, published: Head | None, told: Callable[[], object]) -> None:
        self._kid = kid
        self._told = told
        self._keys: dict[str, OKPKey] = {}
        self._verification = Verification(self._keys, published=published)
        self._batch: list[LedgerRow] = []
        self._first = 0
        self._kids: dict[str, None] = {}
        self._end: dict[str, int] | None = None
        self._takes: dict[str, Callable[[Any], None]] = {
            "ledger_key": self._key,
            "archive": self._archive,
            "row": self._row,
            "checkpoint": self._checkpoint,
            "end": self._close,
        }

    def verified(self, file: BinaryIO) -> Verified:
        lines = read(file)
        if next(lines, None) != ("format", FORMAT):
            raise Malformed(f"This is no {FORMAT} file.")
        for kind, value in lines:
            if self._end is not None or kind not in self._takes:
                raise Malformed(f"A {kind} line is out of its place.")
            self._takes[kind](value)
        self._flush()
        done = self._verification
        counted = {"rows": done.verified_rows, "checkpoints": done.verified_checkpoints}
        if self._end is None:
            raise Malformed(f"The file was cut short after row {done.head[0]}.")
        if self._end != counted:
            raise Malformed("The file's last line counts other rows than the file has.")
        done.finish()
        if self._kid and not self._kids:
            raise CheckpointBroken(1, f"is missing: nothing of this file is signed by {self._kid}")
        rows, signed = done.verified_rows, done.verified_checkpoints
        return Verified(self._first, done.head, rows, signed, done.vouched, tuple(self._kids))

    def _key(self, jwk: dict[str, Any]) -> None:
        try:
            key = checkpoints.public_key(jwk)
        except NotSigned as error:
            raise Malformed(f"A ledger key is {error}.") from None
        if self._kid in ("", key.kid):
            self._keys[str(key.kid)] = key

    def _archive(self, record: str) -> None:
        if self._first:
            raise Malformed("An archive line is out of its place.")
        try:
            self._verification.archive = checkpoints.archive_of(record, self._keys)
        except NotSigned as error:
            raise Malformed(f"The record of the archive before these rows is {error}.") from None

    def _row(self, row: LedgerRow) -> None:
        self._first = self._first or row.sequence
        self._batch.append(row)
        if len(self._batch) >= BATCH:
            self._flush()

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        self._flush()
        self._verification.signed(checkpoint)
        self._kids[checkpoint.kid] = None

    def _close(self, counts: dict[str, int]) -> None:
        self._end = counts

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._verification.rows(batch)
        self._told()


class Writer:
    """Writes rows as they come, each checkpoint behind its row, and counts.

    The checkpoints were listed before the rows: at a row that records a later one the export ends, and is the ledger as
    it was then.
    """

    def __init__(self, file: BinaryIO, signed: list[Checkpoint]) -> None:
        self.rows = 0
        self.checkpoints = 0
        self._file = file
        self._last = signed[-1].number if signed else 0
        self._waiting = iter(signed)
        self._next = next(self._waiting, None)

    def write(self, row: LedgerRow) -> bool:
        """False when the export ends before this row."""
        if row.kind == EventKind.CHECKPOINT_SIGNED and recorded_number(row) > self._last:
            return False
        self._signed_before(row.sequence)
        self._file.write(row_line(row))
        self.rows += 1
        self._signed_before(row.sequence + 1)
        return True

    def end(self) -> None:
        self._signed_before(None)
        self._file.write(end_line(self.rows, self.checkpoints))

    def _signed_before(self, sequence: int | None) -> None:
        while self._next is not None and (sequence is None or self._next.sequence < sequence):
            self._file.write(checkpoint_line(self._next))
            self.checkpoints += 1
            self._next = next(self._waiting, None)


def recorded_number(row: LedgerRow) -> int:
    """Of the checkpoint that a row records; 0 where it says nothing readable, which is for a verifier to find."""
    try:
        return int(row.parsed()["number"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0


def merged(rows: Iterable[LedgerRow], signed: list[Checkpoint]) -> Iterator[bytes]:
    """The lines of some rows, and of the checkpoints that vouch for rows up to the last of them."""
    waiting = iter(signed)
    checkpoint = next(waiting, None)
    for row in rows:
        while checkpoint is not None and checkpoint.sequence < row.sequence:
            yield checkpoint_line(checkpoint)
            checkpoint = next(waiting, None)
        yield row_line(row)
    while checkpoint is not None:
        yield checkpoint_line(checkpoint)
        checkpoint = next(waiting, None)


def _parsed(raw: bytes) -> Line:
    if not raw.endswith(b"\n"):
        raise ValueError("no whole line")
    ((kind, value),) = json.loads(raw).items()
    if kind == "row":
        return kind, _row(value)
    if kind == "checkpoint":
        return kind, _checkpoint(value)
    if kind == "archive":
        return kind, _text(value)
    if kind == "ledger_key" and not isinstance(value, dict):
        raise ValueError("no key")
    return kind, value


def _row(said: dict[str, Any]) -> LedgerRow:
    return LedgerRow(
        sequence=_number(said["sequence"]),
        time=_time(said["time"]),
        actor=_text(said["actor"]),
        kind=_text(said["kind"]),
        subject=_text(said["subject"]),
        detail=_text(said["detail"]),
        previous_hash=bytes.fromhex(said["previous_hash"]),
        hash=bytes.fromhex(said["hash"]),
    )


def _checkpoint(said: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        _number(said["number"]),
        _number(said["sequence"]),
        bytes.fromhex(said["hash"]),
        _time(said["time"]),
        _text(said["kid"]),
        _text(said["signature"]),
    )


def _number(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**63:
        raise ValueError("no sequence")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _time(value: Any) -> datetime:
    time = datetime.fromisoformat(_text(value))
    if time_text(time) != value:
        raise ValueError("no time as an export has it")
    return time
