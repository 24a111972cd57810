"""The ledger's arithmetic: how a row is hashed, how a row follows from the head, how a chain is verified. No I/O.

A row's hash is SHA-256 over its fields, each preceded by its length as 8 bytes big-endian, so that no two different
rows are the same bytes:

    "artstore-ledger-1", sequence, time, actor, kind, subject, detail, previous hash

Numbers are 8 bytes big-endian and signed, the time is in microseconds since 1970-01-01T00:00:00Z, text is UTF-8.
`detail` is hashed as the text that is stored, so that a verifier never has to make JSON canonical itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from artstore_grpc.records import Event, LedgerRow

VERSION = b"artstore-ledger-1"
"""The first field of what is hashed: a change of this format changes it."""

HASH_BYTES = 32
"""The size of a SHA-256 digest (FIPS 180-4)."""

Head = tuple[int, bytes]
"""A row's sequence and hash: all that the next row needs to know."""

GENESIS: Head = (0, bytes(HASH_BYTES))
"""The head of an empty ledger."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class LedgerBroken(Exception):
    """The chain does not hold: `sequence` is that of the first row that is wrong, `problem` says how."""

    def __init__(self, sequence: int, problem: str) -> None:
        self.sequence = sequence
        self.problem = problem
        super().__init__(f"Ledger row {sequence} {problem}.")


def canonical(detail: dict[str, Any]) -> str:
    """One text for one detail: JSON with sorted keys, no spaces, ASCII only.

    ASCII, since PostgreSQL stores neither NUL nor lone surrogates. Raises ValueError for NaN and infinities, TypeError
    for what JSON cannot say.
    """
    return json.dumps(detail, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def append(head: Head, event: Event) -> LedgerRow:
    """The row that records an event next after a head. Raises ValueError when the event's time is naive."""
    sequence, previous_hash = head
    row = LedgerRow(
        sequence=sequence + 1,
        time=event.time,
        actor=event.actor.name,
        kind=str(event.kind),
        subject=event.subject,
        detail=canonical(event.detail | event.actor.origin),
        previous_hash=previous_hash,
        hash=b"",
    )
    return replace(row, hash=row_hash(row))


def row_hash(row: LedgerRow) -> bytes:
    """The hash that a row must carry, 32 bytes; what `row.hash` says is not looked at.

    Raises ValueError when the row's time is naive.
    """
    digest = hashlib.sha256()
    for field in _fields(row):
        digest.update(len(field).to_bytes(8, "big"))
        digest.update(field)
    return digest.digest()


def verify(rows: Iterable[LedgerRow], start: Head = GENESIS) -> Head:
    """Checks that each row follows from the one before, the first from `start`; returns the head they lead to.

    Pages are verified one after the other by passing the returned head on. Raises LedgerBroken at the first row that
    is missing, repeated, out of order or altered. That the tail was cut off shows only in the returned head: compare
    it with one that was published.
    """
    sequence, previous_hash = start
    for row in rows:
        if row.sequence != sequence + 1:
            raise LedgerBroken(sequence + 1, f"is missing: row {row.sequence} is in its place")
        if row.previous_hash != previous_hash:
            raise LedgerBroken(row.sequence, "does not follow from the row before it")
        if _hash_or_none(row) != row.hash:
            raise LedgerBroken(row.sequence, "was altered: its hash is not that of its fields")
        sequence, previous_hash = row.sequence, row.hash
    return sequence, previous_hash


def _hash_or_none(row: LedgerRow) -> bytes | None:
    """None for a row that was given values of other types, which SQLite lets anybody do."""
    try:
        return row_hash(row)
    except (TypeError, ValueError, AttributeError, OverflowError):
        return None


def _fields(row: LedgerRow) -> tuple[bytes, ...]:
    texts = (row.actor, row.kind, row.subject, row.detail)
    return (
        VERSION,
        _number(row.sequence),
        _number(microseconds(row.time)),
        *(text.encode() for text in texts),
        row.previous_hash,
    )


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big", signed=True)


def microseconds(time: datetime) -> int:
    """Whole microseconds since the epoch; integers all the way, since floats lose the last digit."""
    if time.tzinfo is None:
        raise ValueError("a ledger row's time must be aware")
    return (time - _EPOCH) // _MICROSECOND
