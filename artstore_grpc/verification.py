"""The verification of a ledger: rows and checkpoints, fed in the order of their sequence, each held against the others.

What it finds, and names by its number: any field of any row altered; rows deleted, inserted, swapped, repeated; rows
rewritten with correct hashes up to a checkpoint; a checkpoint altered, deleted, swapped, or signed by another key; rows
gone from the beginning without the signed record of an archive, or put among those that it explains; a published
head that the ledger doesn't lead to.

What it can't find without a published head: that the end was cut off, or rewritten, from some row on, if the ledger's
own head was set back and the checkpoints of those rows deleted with them. So publish heads (each checkpoint is in the
log), and compare. Who appends a row without a right to is not found either: the chain proves that nothing was changed
since, not who wrote it.

No I/O: the rows come from a store (audit.py) or a file (exports.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from artstore_grpc import checkpoints, ledger
from artstore_grpc.checkpoints import Archive, CheckpointBroken, Keys
from artstore_grpc.ledger import GENESIS, Head, LedgerBroken
from artstore_grpc.records import Checkpoint, EventKind, LedgerRow

Broken = (LedgerBroken, CheckpointBroken)
"""What a verification raises for a ledger that doesn't hold."""


class HeadArchived(Exception):
    """The published head is among rows that were archived: verify the archive with it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong: the row, the checkpoint (0: none), and a sentence."""

    sequence: int
    checkpoint: int
    problem: str


def finding(error: LedgerBroken | CheckpointBroken) -> Finding:
    return Finding(error.sequence, getattr(error, "number", 0), str(error))


class Verification:
    """One run over a ledger, or over a stretch of it.

    `start`: the head that the first row follows from; `before`: the last checkpoint up to there; `published`: a head
    that the ledger must lead to. Every method raises LedgerBroken, CheckpointBroken and HeadArchived.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        start: Head = GENESIS,
        before: Checkpoint | None = None,
        archive: Archive | None = None,
        published: Head | None = None,
    ) -> None:
        self.head = start
        self.verified_rows = 0
        self.verified_checkpoints = 0
        self.archive = archive
        self._keys = keys
        self._last = before
        self._published = published
        self._compare(start)

    @property
    def vouched(self) -> int:
        """The last row that a checkpoint vouches for, and with it for every row before; 0: none."""
        return self._last.sequence if self._last else 0

    def feed(self, rows: Sequence[LedgerRow], signed: Iterable[Checkpoint]) -> None:
        """Rows and the checkpoints that vouch for rows up to the last of them, merged by sequence."""
        at = 0
        for checkpoint in signed:
            end = at
            while end < len(rows) and rows[end].sequence <= checkpoint.sequence:
                end += 1
            self.rows(rows[at:end])
            self.signed(checkpoint)
            at = end
        self.rows(rows[at:])

    def rows(self, rows: Sequence[LedgerRow]) -> None:
        """The next rows."""
        if not rows:
            return
        self._skip_archived(rows[0])
        self.head = ledger.verify(rows, self.head)
        self.verified_rows += len(rows)
        for row in rows:
            if row.kind == EventKind.CHECKPOINT_SIGNED:
                self._recorded(row)
        if self._published:
            at = self._published[0] - rows[0].sequence
            if 0 <= at < len(rows):
                self._compare((rows[at].sequence, rows[at].hash))

    def signed(self, checkpoint: Checkpoint) -> None:
        """The next checkpoint: the row it vouches for was the last one, or was archived with every row so far."""
        checkpoints.check(checkpoint, self._last, self._keys)
        sequence, number = checkpoint.sequence, checkpoint.number
        if sequence > self.head[0]:
            if not self._may_be_archived(sequence):
                raise LedgerBroken(self.head[0] + 1, f"is missing: checkpoint {number} vouches for row {sequence}")
            self._jump((sequence, checkpoint.hash))
        elif sequence < self.head[0]:
            raise CheckpointBroken(number, "is out of its place")
        elif checkpoint.hash != self.head[1]:
            first = self._last.sequence + 1 if self._last else 1
            problem = f"vouches for another row {sequence}: rows {first} to {sequence} were rewritten"
            raise CheckpointBroken(number, problem, sequence)
        self._last = checkpoint
        self.verified_checkpoints += 1

    def finish(self) -> None:
        """The end of the ledger. Raises LedgerBroken when it ends before the published head."""
        if self._published and self._published[0] > self.head[0]:
            self.missing(f"a head was published for row {self._published[0]}")

    def missing(self, why: str) -> None:
        """Raises LedgerBroken: there should be more rows."""
        raise LedgerBroken(self.head[0] + 1, f"is missing, and with it every row after it: {why}")

    def _recorded(self, row: LedgerRow) -> None:
        """A row says that a checkpoint was signed: it is the last one seen."""
        try:
            number, digest = int(row.parsed()["number"]), str(row.parsed()["digest"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise LedgerBroken(row.sequence, "says nothing readable of the checkpoint it records") from None
        last = self._last.number if self._last else 0
        if number > last:
            raise CheckpointBroken(number, f"is missing: row {row.sequence} says that it was signed")
        if number < last or digest != checkpoints.digest(self._last):
            raise CheckpointBroken(number, f"is another one than row {row.sequence} says was signed")

    def _skip_archived(self, first: LedgerRow) -> None:
        """Goes on at the first row that is left, where those before it were archived. Until the archive's last row the
        hash before it is taken from the row itself: that row is under the next checkpoint like any other."""
        before = first.sequence - 1
        if self.archive is None or before <= self.head[0] or not self._may_be_archived(before):
            return
        self._jump((before, self.archive.hash if before == self.archive.sequence else first.previous_hash))

    def _may_be_archived(self, sequence: int) -> bool:
        """Whether the archive explains that rows up to here are gone. Archives delete the oldest rows first, so it
        explains no gap behind a row that is left: rows before such a gap were put there, or those in it cut out."""
        return self.archive is not None and not self.verified_rows and sequence <= self.archive.sequence

    def _jump(self, head: Head) -> None:
        if self._published and self.head[0] < self._published[0] < head[0]:
            raise HeadArchived
        self.head = head
        self._compare(head)

    def _compare(self, head: Head) -> None:
        if self._published and self._published[0] == head[0] and self._published[1] != head[1]:
            raise LedgerBroken(head[0], "is another one than was published: it was rewritten, or a row before it was")
