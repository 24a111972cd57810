"""What the in-process limiter promises beyond `Limiter`: bounded memory, and its share of a limit."""

from __future__ import annotations

import pytest

from artstore_grpc.ephemeral.memory import SHARED_WINDOWS, MemoryLimiter
from tests.ephemeral.conftest import Clock
from tests.ephemeral.test_limiter import spend


async def test_memory_is_bounded_by_the_number_of_keys_not_of_callers(clock: Clock) -> None:
    """A flood of invented keys makes no more windows than stated."""
    limiter = MemoryLimiter(clock, max_keys=100)
    for number in range(20_000):
        await limiter.charge(f"invented {number}", 1_000_000)
    assert len(limiter) <= 100 + SHARED_WINDOWS


async def test_a_flood_of_keys_opens_no_limit(clock: Clock) -> None:
    """Neither for a key that was there before it, nor for one that came in it."""
    limiter = MemoryLimiter(clock, max_keys=10)
    assert await spend(limiter, "before", 5, 5) == 5
    for number in range(5_000):
        await limiter.charge(f"invented {number}", 5)
    assert await limiter.charge("before", 5) is not None
    assert await spend(limiter, "late", 5, 20) <= 5
    assert await limiter.charge("late", 5) is not None
    assert await limiter.peek("late", 5) is not None


async def test_room_that_is_made_opens_no_limit(clock: Clock) -> None:
    """A key that was counted in a shared window is still counted when others have gone."""
    limiter = MemoryLimiter(clock, max_keys=2)
    await limiter.charge("first", 5)
    await limiter.charge("second", 5)
    clock.advance(30)
    assert await spend(limiter, "late", 5, 5) == 5
    clock.advance(31.5)
    assert await spend(limiter, "late", 5, 5) == 0


async def test_after_a_flood_every_key_has_its_own_limit_again(clock: Clock) -> None:
    """Sharing ends with the minute of the flood."""
    limiter = MemoryLimiter(clock, max_keys=SHARED_WINDOWS)
    for number in range(20_000):
        await limiter.charge(f"invented {number}", 5)
    clock.advance(62)
    assert [await spend(limiter, f"honest {number}", 5, 6) for number in range(500)] == [5] * 500


async def test_an_expired_key_costs_nothing(clock: Clock) -> None:
    """As new keys come, those whose window has passed go, long before the bound is reached."""
    limiter = MemoryLimiter(clock)
    for second in range(1_000):
        for number in range(10):
            await limiter.charge(f"{second} {number}", 5)
        clock.advance(1)
    assert len(limiter) <= 10 * 62


async def test_a_busy_key_is_not_taken_for_an_idle_one(clock: Clock) -> None:
    """It keeps its counts, and the passing ones behind it still go: what matters is when they were last charged."""
    limiter = MemoryLimiter(clock)
    for second in range(200):
        await limiter.charge("busy", 1_000)
        await limiter.charge(f"passing {second}", 5)
        clock.advance(1)
    assert len(limiter) <= 64
    assert await spend(limiter, "busy", 100, 100) == 100 - 60


async def test_peek_makes_no_window(clock: Clock) -> None:
    """Asking about unknown callers takes no memory."""
    limiter = MemoryLimiter(clock)
    for number in range(100):
        await limiter.peek(str(number), 5)
    assert len(limiter) == 0


@pytest.mark.parametrize(("processes", "limit"), [(4, 100), (3, 100), (7, 1_000_000), (4, 4)])
async def test_processes_divide_a_limit(clock: Clock, processes: int, limit: int) -> None:
    """Together they admit no more than the limit, and nearly all of it."""
    limit = min(limit, 10_000)
    limiters = [MemoryLimiter(clock, processes=processes) for _ in range(processes)]
    admitted = sum([await spend(limiter, "a", limit, limit) for limiter in limiters])
    assert 0.95 * limit <= admitted <= limit


async def test_each_of_many_processes_admits_one(clock: Clock) -> None:
    """A limit below the number of processes shuts nobody out for good."""
    limiter = MemoryLimiter(clock, processes=8)
    assert await spend(limiter, "a", 3, 5) == 1
    assert await limiter.charge("a", 0) is not None
