"""What auditors ask: the rows of the ledger, its checkpoints, whether it holds, and why a caller was denied."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from artstore_grpc import checkpoints, filters, pages
from artstore_grpc.checkpoints import Archive, CheckpointBroken, Keys
from artstore_grpc.errors import FailedPrecondition, Overloaded, invalid
from artstore_grpc.ledger import GENESIS, HASH_BYTES, Head, LedgerBroken
from artstore_grpc.model import LedgerQuery
from artstore_grpc.notary import Notary, archive_in
from artstore_grpc.records import Checkpoint, EventKind, LedgerRow
from artstore_grpc.store.protocol import Store
from artstore_grpc.vault import Vault, WrongKey
from artstore_grpc.verification import Broken, Finding, HeadArchived, Verification, finding

DEFAULT_PAGE_SIZE = 100
MAX_ROWS = 50_000
"""What one call verifies: a second or two, well under the 30 s that a call may take."""
BATCH = 500
"""Rows read and hashed at a time: a few milliseconds, in which the loop does nothing else."""
MAX_CHECKPOINTS = 5000
"""Read at once, most of them of archived rows; one call verifies no more: about a second."""
MAX_VERIFICATIONS = 2
"""At once, in one process: they take the core that tokens are signed on."""
RETRY_AFTER = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What to verify: at most `max_rows` rows after `start`, and that they lead to `published`, if that is given."""

    start: Head = GENESIS
    max_rows: int = MAX_ROWS
    published: Head | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """What was verified, up to `last`; `more`: the ledger goes on there; `broken`: what was found wrong."""

    rows: int
    checkpoints: int
    last: Head
    more: bool
    broken: Finding | None


def head_of(sequence: int, hash: bytes, field: str) -> Head | None:
    """A head from a request; None for 0. Raises InvalidRequest."""
    if sequence < 0:
        raise invalid(f"{field}_sequence", "must not be negative")
    if len(hash) != (HASH_BYTES if sequence else 0):
        raise invalid(f"{field}_hash", f"must be {HASH_BYTES} bytes, or none with sequence 0")
    return (sequence, hash) if sequence else None


class Audit:
    """The use cases of AuditService."""

    def __init__(self, store: Store, vault: Vault, notary: Notary) -> None:
        self._store = store
        self._vault = vault
        self._notary = notary
        self._running = 0

    async def events(
        self, *, page_size: int, page_token: str, filter: str, order_by: str = ""
    ) -> tuple[list[LedgerRow], str]:
        """A page of rows and the token of the next one. Raises InvalidRequest."""
        newest_first = descending(order_by)
        size = pages.size(page_size, DEFAULT_PAGE_SIZE)
        comparisons = filters.parse(filter, filters.LEDGER)
        asked = ("audit events", filter, *(["newest first"] if newest_first else []))
        place = pages.place(self._vault, page_token, *asked)
        query = LedgerQuery(size + 1, comparisons, int(place[1]) if place else None, newest_first)
        found = await self._store.ledger_page(query)
        page = pages.fitting(found[:size], row_weight)
        if len(page) == len(found):
            return page, ""
        return page, pages.token(self._vault, (page[-1].time, str(page[-1].sequence)), *asked)

    async def checkpoints(self, *, page_size: int, page_token: str) -> tuple[list[Checkpoint], str]:
        """A page of checkpoints and the token of the next one. Raises InvalidRequest."""
        size = pages.size(page_size, DEFAULT_PAGE_SIZE)
        place = pages.place(self._vault, page_token, "audit checkpoints")
        found = await self._store.checkpoints(int(place[1]) if place else 0, size + 1)
        page = found[:size]
        if len(page) == len(found):
            return page, ""
        return page, pages.token(self._vault, (page[-1].time, str(page[-1].number)), "audit checkpoints")

    async def ledger_keys(self) -> list[dict[str, str]]:
        """The public JWKs of the ledger's keys."""
        keys = (await self._notary.keys()).values()
        return [{name: str(value) for name, value in key.as_dict(private=False).items()} for key in keys]

    async def explain(self, denial_id: str) -> str:
        """The cause of a denial. Raises InvalidRequest for what isn't a denial_id of this installation."""
        try:
            return self._vault.explain_denial(denial_id)
        except WrongKey:
            raise invalid("denial_id", "is not one of this installation's", reason="BAD_DENIAL_ID") from None

    async def verify(self, stretch: Stretch) -> Verified:
        """Verifies a stretch. Raises Overloaded while others are at it, FailedPrecondition for a published head that is
        among archived rows."""
        if self._running >= MAX_VERIFICATIONS:
            raise Overloaded(reason="TOO_MANY_VERIFICATIONS", retry_after=RETRY_AFTER)
        self._running += 1
        try:
            return await Run(self._store, self._notary, stretch).verified()
        except HeadArchived:
            raise FailedPrecondition("The head was archived; verify the archive.", reason="HEAD_ARCHIVED") from None
        finally:
            self._running -= 1


class Run:
    """One verification of what is stored when it begins; rows that come meanwhile are left to the next call."""

    def __init__(self, store: Store, notary: Notary, stretch: Stretch) -> None:
        self._store = store
        self._notary = notary
        self._stretch = stretch
        self._keys: Keys = {}
        self._before: Checkpoint | None = None
        self._verification = Verification(self._keys, start=stretch.start)

    async def verified(self) -> Verified:
        """What was found. What is broken is an answer, not an error."""
        self._keys = await self._notary.keys()
        broken, more = None, False
        try:
            self._before = await self._store.last_checkpoint(self._stretch.start[0])
            if self._before is not None:
                await self._check(self._before)
            self._begin(await self._archive())
            more = await self._walk()
        except Broken as error:
            broken = finding(error)
        except (ValueError, TypeError):
            broken = finding(await self._unreadable())
        done = self._verification
        return Verified(done.verified_rows, done.verified_checkpoints, done.head, more, broken)

    def _begin(self, archive: Archive | None) -> None:
        start, published = self._stretch.start, self._stretch.published
        self._verification = Verification(
            self._keys, start=start, before=self._before, archive=archive, published=published
        )

    async def _check(self, before: Checkpoint) -> None:
        """The checkpoint that the stretch goes on from: one that was moved to an earlier row would hide there."""
        previous = await self._store.checkpoints(before.number - 2, 1)
        checkpoints.check(before, previous[0] if before.number > 1 and previous else None, self._keys)

    async def _walk(self) -> bool:
        """Goes through the stretch, up to the head as it is now; whether the ledger goes on after it."""
        newest, head = await self._ends()
        while (left := self._stretch.max_rows - self._verification.verified_rows) > 0:
            rows = await self._rows(min(BATCH, left))
            if rows and await self._overtaken(rows[0]):
                newest, head = await self._ends()
                continue
            known = [row for row in rows if row.sequence <= head[0]]
            if not known:
                await self._end(newest, head, beyond=bool(rows))
                return False
            if not await self._feed(known):
                return True
            await asyncio.sleep(0)
        return True

    async def _ends(self) -> tuple[Checkpoint | None, Head]:
        """The newest checkpoint, then the head: so that whatever a row up to there says was signed is there to be read,
        and nothing that comes meanwhile is missed."""
        newest = await self._store.last_checkpoint()
        return newest, await self._store.head()

    async def _overtaken(self, next_row: LedgerRow) -> bool:
        """Whether an archive has deleted rows beyond those verified here: then the run has begun again, to go on at the
        first row that is left. Raises LedgerBroken for a gap that no archive has made:
        archives delete the oldest rows first, so a row before a gap was put there, or those in it cut out."""
        done = self._verification
        if next_row.sequence <= done.head[0] + 1:
            return False
        archive = await self._archive()
        if await self._is_left(done.head[0]):
            raise LedgerBroken(done.head[0] + 1, f"is missing: row {next_row.sequence} is in its place")
        if not done.verified_rows and done.archive == archive:
            return False
        self._begin(archive)
        return True

    async def _is_left(self, through: int) -> bool:
        """Whether there is a row up to this one."""
        try:
            first = await self._store.ledger(0, 1)
        except (ValueError, TypeError):
            return True  # one that can't be read: no archive deletes rows and makes others unreadable
        return bool(first) and first[0].sequence <= through

    async def _feed(self, rows: list[LedgerRow]) -> bool:
        """The next rows with their checkpoints; False when these are so many that it is enough."""
        done = self._verification
        signed = await self._store.checkpoints_of(done.head[0], rows[-1].sequence, MAX_CHECKPOINTS)
        if len(signed) == MAX_CHECKPOINTS:  # there may be more: rows behind the last of these wait for theirs
            done.feed([row for row in rows if row.sequence <= signed[-1].sequence], signed)
            return False
        done.feed(rows, signed)
        return True

    async def _end(self, newest: Checkpoint | None, head: Head, *, beyond: bool) -> None:
        """No rows are left, or none but those `beyond` the head: holds the end against the stored head, the newest
        checkpoint and the published head."""
        done = self._verification
        if newest is not None and newest.sequence > done.head[0]:
            signed = await self._store.checkpoints_of(done.head[0], newest.sequence, 1)
            done.feed([], signed)
        done.finish()
        if head[0] > done.head[0]:
            done.missing(f"the ledger's head is row {head[0]}")
        if head[0] < done.head[0] or (beyond and await self._store.head() == head):  # it moves with each row
            raise LedgerBroken(head[0] + 1, f"is beyond the ledger's head, row {head[0]}")
        if head != done.head:
            raise LedgerBroken(head[0], "has another hash than the ledger's head says")

    async def _rows(self, limit: int) -> list[LedgerRow]:
        """The next rows. One that can't even be read (SQLite stores anything) is broken."""
        after = self._verification.head[0]
        try:
            return await self._store.ledger(after, limit)
        except (ValueError, TypeError):
            if limit == 1:
                raise LedgerBroken(after + 1, "can't be read") from None
            return await self._rows(max(1, limit // 2))

    async def _unreadable(self) -> CheckpointBroken:
        """The checkpoint that can't be read (SQLite stores anything), looked for one by one."""
        number = 0
        try:
            while found := await self._store.checkpoints(number, 1):
                number = found[0].number
        except (ValueError, TypeError):
            return CheckpointBroken(number + 1, "can't be read")
        return CheckpointBroken(0, "can't be read, nor be told which it is")

    async def _archive(self) -> Archive | None:
        row = await self._store.last_ledger_row(EventKind.LEDGER_ARCHIVED)
        archive = archive_in(row, await self._notary.keys())
        if row is not None and archive is None:
            raise LedgerBroken(row.sequence, "holds no record of an archive that the ledger's key has signed")
        return archive


def descending(order_by: str) -> bool:
    """Whether the newest rows come first. Raises InvalidRequest for an order that there isn't (AIP-132)."""
    words = order_by.split()
    if words not in ([], ["sequence"], ["sequence", "desc"]):
        raise invalid("order_by", "must be sequence or sequence desc")
    return words[-1:] == ["desc"]


def row_weight(row: LedgerRow) -> int:
    """About the bytes that a row takes in an answer."""
    return 200 + len(row.actor) + len(row.subject) + 2 * len(row.detail)
