"""What tests of the token source share: a clock that a test moves, and waiting for what comes soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE_SECONDS = 10.0


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


async def eventually(holds: Callable[[], object]) -> None:
    """Waits until it holds, letting the loop run; fails after a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        await asyncio.sleep(0.001)


def soon(holds: Callable[[], object]) -> None:
    """The same without a loop."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.001)
