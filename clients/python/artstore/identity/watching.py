"""Work that goes on only for as long as its caller's token is good: a stream, a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

CHECK_SECONDS = 0.5
"""How often it is looked at: a revocation ends the work within a second."""


async def while_good(work: Awaitable[T], check: Callable[[], None]) -> T:
    """What the work comes to. When `check` raises, the work is cancelled, and that is raised once it has ended."""
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    ended: list[Exception] = []
    timers: list[asyncio.TimerHandle] = []

    def look() -> None:
        timers.clear()
        try:
            check()
        except Exception as error:
            ended.append(error)
            limit.reschedule(loop.time())
        else:
            timers.append(loop.call_later(CHECK_SECONDS, look))

    timers.append(loop.call_later(CHECK_SECONDS, look))
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not ended:
            raise  # the work's own
        raise ended[0] from None
    finally:
        for timer in timers:
            timer.cancel()
