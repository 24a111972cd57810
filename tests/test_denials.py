"""Denied authentications in the ledger: one row for each account, source and minute, bounded, and none that is lost."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc import denials
from artstore_grpc.call import Call, Caller
from artstore_grpc.denials import HELD_MINUTES, MAX_CAUSES, MAX_ROWS, NOBODY, OTHER, Denials
from artstore_grpc.errors import InvalidClient, StoreUnavailable
from artstore_grpc.model import UNAUTHENTICATED
from artstore_grpc.records import Event
from artstore_grpc.store.sql import SqlStore
from tests.store.samples import account

START = datetime(2030, 1, 31, 12, 0, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Gate:
    """A gate that denies, its clock, and the ledger."""

    def __init__(self, store: Any) -> None:
        self.time = START
        self.denials = Denials(store, lambda: self.time)
        self._store = store

    def deny(
        self, source: str = "203.0.113.7", whose: tuple[str, str] = ("", ""), cause: str = "wrong secret", **more: Any
    ) -> None:
        error = InvalidClient(cause=f"{cause}: {whose[1]}" if whose[1] else cause)
        error.whose = whose
        self.denials.note(error, Call("m", source, **more))

    async def rows(self) -> list[Any]:
        rows = await self._store.ledger(0, 100_000)
        return [SimpleNamespace(row=row, **row.parsed()) for row in rows]


@pytest.fixture
def gate(store: SqlStore) -> Gate:
    return Gate(store)


async def test_one_row_for_a_minute(gate: Gate) -> None:
    """Of an account from a source: how many, why, when, whose, and the first one's call; once it has ended."""
    for cause in ("wrong secret", "wrong secret", "secret has expired"):
        gate.deny(whose=("id", "sa_dev_x_00000000"), cause=cause, request_id=f"r {gate.time.second}")
        gate.time += timedelta(seconds=9)
    await gate.denials.flush()
    assert not await gate.rows()
    gate.time = START + MINUTE
    await gate.denials.flush()
    await gate.denials.flush()
    (found,) = await gate.rows()
    assert (found.row.kind, found.row.actor, found.row.subject) == ("authentication.denied", UNAUTHENTICATED, "id")
    assert (found.count, found.causes) == (3, {"wrong secret": 2, "secret has expired": 1})
    assert (found.source, found.request_id, found.client_id) == ("203.0.113.7", "r 30", "sa_dev_x_00000000")
    assert (found.minute, found.first_time) == ("2030-01-31T12:00:00+00:00", START.isoformat())
    assert found.last_time == (START + timedelta(seconds=18)).isoformat()
    assert found.row.time == gate.time


async def test_what_makes_another_row(gate: Gate) -> None:
    """Another account, another source, another minute; an IPv6 /64 is one source."""
    gate.deny()
    gate.deny(whose=("id", "c"))
    gate.deny("203.0.113.8")
    gate.deny("2001:db8::1")
    gate.deny("2001:db8::2")
    gate.time += MINUTE
    gate.deny()
    await gate.denials.close()
    found = [(row.row.subject, row.source, row.count) for row in await gate.rows()]
    assert found == [
        (NOBODY, "203.0.113.7", 1),
        ("id", "203.0.113.7", 1),
        (NOBODY, "203.0.113.8", 1),
        (NOBODY, "2001:db8::/64", 2),
        (NOBODY, "203.0.113.7", 1),
    ]


async def test_a_flood_is_a_thousand_rows_and_one(gate: Gate) -> None:
    """However many accounts and sources there are in a minute; the last row has the number of the rest."""
    for number in range(MAX_ROWS + 500):
        gate.deny(f"10.0.{number // 250}.{number % 250}")
        gate.deny(f"10.0.{number // 250}.{number % 250}")
    gate.time += MINUTE
    await gate.denials.flush()
    *rows, last = await gate.rows()
    assert len(rows) == MAX_ROWS
    assert {row.count for row in rows} == {2}
    assert (last.row.kind, last.count) == ("authentication.denials_omitted", 1000)
    gate.deny()
    gate.time += MINUTE
    await gate.denials.flush()
    assert len(await gate.rows()) == MAX_ROWS + 2, "the next minute has rows of its own"


async def test_causes_are_bounded(gate: Gate) -> None:
    """A row has so many, and counts the others together."""
    for number in range(MAX_CAUSES + 5):
        gate.deny(cause=f"cause {number}")
    await gate.denials.close()
    (found,) = await gate.rows()
    assert found.causes[OTHER] == 5
    assert len(found.causes) == MAX_CAUSES + 1


async def test_who_was_authenticated_was_not_denied(gate: Gate) -> None:
    """A stream that ends with its token, say."""
    gate.deny(caller=Caller(account(), frozenset()))
    await gate.denials.close()
    assert not await gate.rows()


class Away:
    """A store that takes so many units, and is away then; what it took is in `events`."""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.events: list[Event] = []

    def unit(self) -> Away:
        return self

    async def __aenter__(self) -> Away:
        if self.takes <= 0:
            raise StoreUnavailable
        self.takes -= 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Commits."""

    def record(self, event: Event) -> None:
        self.events.append(event)


def told(events: list[Event]) -> int:
    return sum(event.detail["count"] for event in events)


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Rows are written two at a time, so that a store can go away between them."""
    patch = pytest.MonkeyPatch()
    patch.setattr(denials, "BATCH", 2)
    yield
    patch.undo()


@given(
    minutes=st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=2 * HELD_MINUTES),
    takes=st.lists(st.integers(0, 4), min_size=1),
)
async def test_none_is_lost_nor_told_twice(minutes: list[list[int]], takes: list[int]) -> None:
    """Whatever comes in which minute, and whenever the database is away: once it is back each denial was told once, and
    no more rows are held than those of HELD_MINUTES."""
    store = Away(0)
    gate = Gate(store)
    for number, sources in enumerate(minutes):
        for source in sources:
            gate.deny(f"10.0.0.{source}")
        store.takes = takes[number % len(takes)]
        with contextlib.suppress(StoreUnavailable):
            await gate.denials.flush()
        gate.time += MINUTE
        assert len(gate.denials._minutes) <= HELD_MINUTES
    store.takes = 1000
    await gate.denials.close()
    assert told(store.events) == sum(map(len, minutes))


async def test_a_clock_that_goes_back(gate: Gate) -> None:
    """Into a minute that was written: its denials make rows of their own."""
    for _ in range(2):
        gate.deny()
        gate.time += MINUTE
        await gate.denials.flush()
        gate.time -= MINUTE
    assert [row.count for row in await gate.rows()] == [1, 1]


async def test_a_row_holds_no_text_of_a_stranger(gate: Gate) -> None:
    """Whom nobody knows is `unknown`: what a caller sends as its id may be a secret."""
    error = InvalidClient(cause="unknown client_id")
    gate.denials.note(error, Call("m", "203.0.113.7", authorization="Basic c2VjcmV0", request_id="r"))
    await gate.denials.close()
    (found,) = await gate.rows()
    assert json.loads(found.row.detail).keys() == {
        *("minute", "count", "causes", "first_time", "last_time", "source", "request_id")
    }
