"""How a start that waits is given up."""

from __future__ import annotations

import asyncio

import pytest

from artstore_grpc.app import unless

PATIENCE_SECONDS = 60.0


class Waits:
    """Work that never ends by itself, and of so many cancellations makes an ordinary failure, which it waits out."""

    def __init__(self, swallows: int) -> None:
        self.swallows = swallows

    async def __call__(self) -> str:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self.swallows:
                    raise
                self.swallows -= 1


@pytest.mark.parametrize("swallows", [0, 1, 2])
async def test_a_stop_is_not_lost(swallows: int) -> None:
    """A stop ends a start that waits, though a driver takes the cancellation for a time-out of its own."""
    stopping, work = asyncio.Event(), Waits(swallows)
    asyncio.get_running_loop().call_later(0.05, stopping.set)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await unless(stopping, work()) is None
    assert work.swallows == 0


async def test_what_is_done_first_counts() -> None:
    """Work that ends before the stop returns what it returns, and raises what it raises."""

    async def done() -> str:
        return "done"

    async def fails() -> str:
        raise ValueError("no")

    assert await unless(asyncio.Event(), done()) == "done"
    with pytest.raises(ValueError, match="no"):
        await unless(asyncio.Event(), fails())
