"""Reads by key, shared by all who ask while one is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from artstore_grpc import lookups
from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.lookups import MAX_KEYS, LookUps


class Shelf:
    """What is read from: keeps what it was asked for, and answers when it is let go."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.values = {"a": 1, "b": 2, "c": 3}
        self.open = asyncio.Event()
        self.error: BaseException | None = None

    async def read(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(list(keys))
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return {key: self.values[key] for key in keys if key in self.values}


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_who_asks_meanwhile_shares_the_next_read() -> None:
    """One statement at a time, and each finds what it asked for; what isn't there is None."""
    shelf = Shelf()
    look_ups = LookUps(shelf.read)
    first = asyncio.create_task(look_ups.find("a"))
    await turns()
    others = [asyncio.create_task(look_ups.find(key)) for key in ("b", "c", "b", "nothing")]
    await turns()
    assert shelf.asked == [["a"]]
    shelf.open.set()
    assert await asyncio.gather(first, *others) == [1, 2, 3, 2, None]
    assert shelf.asked == [["a"], ["b", "c", "nothing"]]


async def test_a_read_that_fails_once_is_done_again() -> None:
    """One dead connection doesn't cost all who share a read."""
    asked = 0

    async def read(keys: Sequence[str]) -> Mapping[str, int]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise StoreUnavailable("a connection died")
        return dict.fromkeys(keys, 7)

    assert await LookUps(read).find("a") == 7
    assert asked == 2


async def test_a_look_up_sees_what_is_there_when_it_is_asked_for() -> None:
    """A read that has begun is too old for who asks now, for the same key too."""
    shelf = Shelf()
    look_ups = LookUps(shelf.read)
    early = asyncio.create_task(look_ups.find("a"))
    await turns()
    late = asyncio.create_task(look_ups.find("a"))
    await turns()
    shelf.open.set()
    await asyncio.gather(early, late)
    assert shelf.asked == [["a"], ["a"]]


async def test_a_statement_is_bounded() -> None:
    """However many ask at once, no statement has more than MAX_KEYS keys, and everybody is answered."""
    shelf = Shelf()
    shelf.open.set()
    look_ups = LookUps(shelf.read)
    await asyncio.gather(*(look_ups.find(str(number)) for number in range(MAX_KEYS + 1)))
    assert [len(keys) for keys in shelf.asked] == [MAX_KEYS, 1]


async def test_an_error_reaches_all_who_wait_and_ends_with_them() -> None:
    """Everybody in the failed read hears of it; who asks afterwards gets a read of its own."""
    shelf = Shelf()
    look_ups = LookUps(shelf.read)
    waiting = [asyncio.create_task(look_ups.find(key)) for key in ("a", "b")]
    await turns()
    shelf.error = ConnectionError("down")
    shelf.open.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError, ConnectionError]
    shelf.error = None
    assert await look_ups.find("a") == 1


async def test_who_gives_up_ends_nothing() -> None:
    """The others in the same read still get their answers."""
    shelf = Shelf()
    look_ups = LookUps(shelf.read)
    gone, stays = (asyncio.create_task(look_ups.find("a")) for _ in range(2))
    await turns()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    shelf.open.set()
    assert await stays == 1


async def test_the_patient_share_a_statement(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first who asks waits for nothing; who asks soon after is gathered with all others who do."""
    monkeypatch.setattr(lookups, "GATHER_SECONDS", 0.05)
    shelf = Shelf()
    shelf.open.set()
    look_ups = LookUps(shelf.read)
    assert await look_ups.find_patiently("a") == 1
    others = [asyncio.create_task(look_ups.find_patiently(key)) for key in ("b", "c", "nothing")]
    assert await asyncio.gather(*others) == [2, 3, None]
    assert [sorted(keys) for keys in shelf.asked] == [["a"], ["b", "c", "nothing"]]


async def test_what_nobody_waits_for_is_read_soon() -> None:
    """Gathered into one statement; past so many keys as one has the others are dropped."""
    shelf = Shelf()
    shelf.open.set()
    look_ups = LookUps(shelf.read)
    for number in range(2 * MAX_KEYS):
        look_ups.want(str(number))
    assert not shelf.asked
    async with asyncio.timeout(10):
        while not shelf.asked:  # noqa: ASYNC110 - a timer of the loop's does it
            await asyncio.sleep(0.001)
    await look_ups.close()
    assert [len(keys) for keys in shelf.asked] == [MAX_KEYS]


async def test_closed_it_reads_no_more() -> None:
    """What was wanted and not begun is left; what was begun has its end."""
    shelf = Shelf()
    look_ups = LookUps(shelf.read)
    begun = asyncio.create_task(look_ups.find("a"))
    await turns()
    look_ups.want("b")
    closing = asyncio.create_task(look_ups.close())
    await turns()
    assert not closing.done()
    shelf.open.set()
    await closing
    assert await begun == 1
    await asyncio.sleep(2 * lookups.GATHER_SECONDS)
    assert shelf.asked == [["a"]]
