"""Denied authentications as the ledger tells them: a row for each account, source and minute, and no more than so many.

Who attacks decides how many denials there are, not how many rows. They are gathered in memory, and written once their
minute has ended, or at the drain; a crash loses those of its last minute, which the log has too. A database that is
away for longer than HELD_MINUTES costs the rows of the oldest minutes: they become one row of their number.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from artstore_grpc.addresses import network
from artstore_grpc.call import Call
from artstore_grpc.errors import IdentityError
from artstore_grpc.model import UNAUTHENTICATED
from artstore_grpc.records import Actor, Event, EventKind
from artstore_grpc.store.protocol import Store

FLUSH_INTERVAL = timedelta(seconds=5)
MAX_ROWS = 1000
"""Of one minute, in one process; the denials past them are one row of their number."""
HELD_MINUTES = 10
"""Kept while the database is away: under 10 MB, at MAX_ROWS each."""
MAX_CAUSES = 8
"""Of one row; others are counted as OTHER."""
OTHER = "other"
BATCH = 50
"""Rows written in one unit: the ledger is locked meanwhile, and hashing them holds the loop up for a millisecond."""
NOBODY = "unknown"
"""The subject where the caller named no account that there is, or none that was known before it was refused."""


@dataclass(slots=True)
class Denied:
    """The denials that make one row: how many, why, and the first one's call."""

    source: str
    request_id: str
    trace_id: str
    first: datetime
    last: datetime
    client_id: str
    count: int = 0
    causes: Counter[str] = field(default_factory=Counter)

    def add(self, cause: str, time: datetime) -> None:
        self.count += 1
        self.last = time
        self.causes[cause if cause in self.causes or len(self.causes) < MAX_CAUSES else OTHER] += 1


@dataclass(slots=True)
class Minute:
    """What was denied in one minute: by account and source, and how often past MAX_ROWS of these."""

    start: datetime
    denied: dict[tuple[str, str], Denied] = field(default_factory=dict)
    omitted: int = 0

    def note(self, error: IdentityError, call: Call, time: datetime) -> None:
        (account_id, client_id), source = error.whose, network(call.source)
        row = self.denied.get((account_id, source))
        if row is None:
            if len(self.denied) >= MAX_ROWS:
                self.omitted += 1
                return
            row = self.denied[account_id, source] = Denied(
                source, call.request_id, call.trace_id, time, time, client_id
            )
        row.add(error.cause.removesuffix(f": {client_id}") or error.reason, time)

    @property
    def total(self) -> int:
        return self.omitted + sum(row.count for row in self.denied.values())

    def events(self, now: datetime) -> Iterator[Event]:
        start = self.start.isoformat()
        for (account_id, _), row in self.denied.items():
            detail = {
                "minute": start,
                "count": row.count,
                "causes": dict(row.causes),
                "first_time": row.first.isoformat(),
                "last_time": row.last.isoformat(),
                **({"client_id": row.client_id} if row.client_id else {}),
            }
            actor = Actor(UNAUTHENTICATED, row.source, row.request_id, row.trace_id)
            yield Event(now, actor, EventKind.AUTHENTICATION_DENIED, account_id or NOBODY, detail)
        if self.omitted:
            omitted = {"minute": start, "count": self.omitted}
            yield Event(now, Actor(UNAUTHENTICATED), EventKind.AUTHENTICATION_DENIALS_OMITTED, NOBODY, omitted)


class Denials:
    """Gathers denials and writes them."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._minutes: dict[datetime, Minute] = {}
        self._writing = asyncio.Lock()

    def note(self, error: IdentityError, call: Call) -> None:
        """Remembers a denial. A call that was authenticated was not denied, whatever became of it afterwards: a stream
        ends with its token."""
        if call.caller is not None:
            return
        time = self._now()
        self._minute(time).note(error, call, time)

    def _minute(self, time: datetime) -> Minute:
        start = minute_of(time)
        if start not in self._minutes:
            self._minutes[start] = Minute(start)
            while len(self._minutes) > HELD_MINUTES:
                first, second, *_ = self._minutes
                self._minutes[first] = Minute(first, omitted=self._minutes[first].total + self._minutes[second].total)
                del self._minutes[second]
        return self._minutes[start]

    async def flush(self) -> None:
        """Writes the minutes that have ended. Raises StoreUnavailable, and keeps what isn't written."""
        current = minute_of(self._now())
        await self._write([start for start in self._minutes if start != current])

    async def close(self) -> None:
        """Writes what there is, the present minute too. Raises StoreUnavailable."""
        await self._write(list(self._minutes))

    async def _write(self, starts: list[datetime]) -> None:
        async with self._writing:
            for start in starts:
                minute = self._minutes.pop(start, None)
                if minute is None:
                    continue
                try:
                    await self._write_minute(minute)
                except BaseException:  # a cancelled caller must not lose what was denied
                    self._keep(minute)
                    raise

    def _keep(self, minute: Minute) -> None:
        """Takes back what couldn't be written; where the clock went back meanwhile the minute is there again."""
        again = self._minutes.setdefault(minute.start, minute)
        if again is not minute:
            again.omitted += minute.total

    async def _write_minute(self, minute: Minute) -> None:
        """In several units; what is written is gone from the minute, so that it isn't written twice."""
        while minute.denied:
            keys = list(minute.denied)[:BATCH]
            await self._record(Minute(minute.start, {key: minute.denied[key] for key in keys}))
            for key in keys:
                del minute.denied[key]
        if minute.omitted:
            await self._record(minute)

    async def _record(self, minute: Minute) -> None:
        async with self._store.unit() as unit:
            for event in minute.events(self._now()):
                unit.record(event)


def minute_of(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(second=0, microsecond=0)
