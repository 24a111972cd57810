"""Work under a deadline, armed only when the work waits."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

import pytest

from artstore_grpc.deadlines import DeadlinePassed, within

LONG_SECONDS = 60.0


async def at_once(value: int) -> int:
    return value


async def after(event: asyncio.Event, value: int) -> int:
    await event.wait()
    await asyncio.sleep(0)
    return value


async def test_work_that_does_not_wait_arms_no_timer() -> None:
    """What is answered at once costs the loop nothing."""
    loop = asyncio.get_running_loop()
    with patch.object(loop, "call_at", side_effect=AssertionError("a timer was armed")):
        assert await within(LONG_SECONDS, at_once(7)) == 7


async def test_work_that_waits_is_gone_on_with() -> None:
    """However often it waits, what it returns comes back."""
    event = asyncio.Event()
    task = asyncio.create_task(within(LONG_SECONDS, after(event, 7)))
    await asyncio.sleep(0)
    assert not task.done()
    event.set()
    assert await task == 7


async def test_a_deadline_ends_the_work() -> None:
    """It raises DeadlinePassed, and the work is cancelled rather than left behind."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(DeadlinePassed):
        await within(0.001, work())
    assert ended.is_set()


@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_comes_through(waits: bool) -> None:
    """Before and after the work has waited; a TimeoutError of its own too."""

    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine") as caught:
        await within(LONG_SECONDS, work())
    assert not isinstance(caught.value, DeadlinePassed)


async def test_a_cancellation_reaches_the_work() -> None:
    """Who gives up ends the work, which may say its last words."""
    said: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            said.append("last words")
            raise

    task = asyncio.create_task(within(LONG_SECONDS, work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert said == ["last words"]


async def test_work_may_catch_what_it_awaits() -> None:
    """An exception of what it waits for is thrown where it waits, and it may go on."""

    async def work() -> str:
        failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(failing.set_exception, ValueError("no"))
        try:
            await failing
        except ValueError:
            await asyncio.sleep(0)
            return "went on"
        raise AssertionError

    assert await within(LONG_SECONDS, work()) == "went on"
