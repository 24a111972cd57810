"""Work under a deadline that costs nothing while the work does not wait: most calls are answered from memory at once.

`asyncio.timeout` arms and disarms a timer each time, which is a tenth of a warm token's own work. Nothing can be late
that never gave the loop a chance to notice, so the timer is armed only when the work waits for the first time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class DeadlinePassed(TimeoutError):
    """The work took too long; a TimeoutError of its own is none of these."""


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What the work returns. Raises DeadlinePassed when that takes longer than `seconds`, having cancelled the work."""
    try:
        awaited = work.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    try:
        async with asyncio.timeout(seconds) as limit:
            return await Begun(work, awaited)
    except TimeoutError:
        if limit.expired():
            raise DeadlinePassed from None
        raise


class Begun(Generic[T]):
    """A coroutine that was begun by `send`, and what it waits for: awaiting this goes on with it."""

    def __init__(self, work: Coroutine[Any, Any, T], awaited: Any) -> None:
        self._work = work
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            while True:
                try:
                    sent = yield self._awaited
                except BaseException as thrown:  # a cancellation: the work's own business
                    self._awaited = self._work.throw(thrown)
                else:
                    self._awaited = self._work.send(sent)
        except StopIteration as finished:
            result: T = finished.value
            return result
