"""What every back-off promises, and what one in memory and one in Redis promise beyond that."""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artstore_grpc.ephemeral.back_off import LONGEST_WAIT_SECONDS, MEMORY_SECONDS, SHARED, MemoryBackOff, Standing
from artstore_grpc.ephemeral.protocol import BackOff
from artstore_grpc.ephemeral.redis_back_off import RedisBackOff
from tests import servers
from tests.ephemeral.conftest import PATIENT, Clock

FREE = 10
SOON = timedelta(milliseconds=50)


async def spend(back_off: BackOff, key: str = "k", times: int = FREE) -> None:
    """So many attempts, each of which is admitted."""
    for _ in range(times):
        assert await back_off.attempt(key, FREE) is None


async def test_the_first_ones_are_free(back_off: BackOff) -> None:
    """Ten in a minute are admitted one after the other; then there is a wait, of a second at most."""
    await spend(back_off)
    wait = await back_off.attempt("k", FREE)
    assert wait is not None
    assert timedelta(seconds=0.9) < wait <= timedelta(seconds=1.01)


async def test_processes_divide_what_is_free(clock: Clock) -> None:
    """Of processes that don't know of each other each gives out its share of the free attempts, and at least one."""
    one_of_four, one_of_many = MemoryBackOff(clock, processes=4), MemoryBackOff(clock, processes=64)
    await spend(one_of_four, times=2)
    assert await one_of_four.attempt("k", FREE) is not None
    await spend(one_of_many, times=1)
    assert await one_of_many.attempt("k", FREE) is not None


async def test_waits_double(back_off: BackOff, clock: Clock) -> None:
    """Each attempt that is admitted after that makes the next wait twice as long, up to 15 minutes."""
    await spend(back_off)
    waits = []
    for _ in range(12):
        wait = await back_off.attempt("k", FREE)
        assert wait is not None
        waits.append(round(wait.total_seconds()))
        clock.advance(wait.total_seconds())
        await spend(back_off, times=1)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


async def test_a_moment_early_is_too_early(back_off: BackOff, clock: Clock) -> None:
    """The wait that was told is the wait: before it has passed nothing is admitted."""
    await spend(back_off)
    wait = await back_off.peek("k")
    assert wait is not None
    clock.advance(wait.total_seconds() - 0.01)
    assert await back_off.attempt("k", FREE) is not None
    clock.advance(0.01)
    assert await back_off.peek("k") is None
    assert await back_off.attempt("k", FREE) is None


async def test_who_does_not_wait_is_not_punished(back_off: BackOff, clock: Clock) -> None:
    """Attempts that are refused count nothing: a thousand of them don't make the wait longer."""
    await spend(back_off)
    for _ in range(1000 if isinstance(back_off, MemoryBackOff) else 50):
        assert await back_off.attempt("k", FREE) is not None
    clock.advance(1.001)
    assert await back_off.attempt("k", FREE) is None


async def test_nine_a_minute_are_free_for_ever(back_off: BackOff, clock: Clock) -> None:
    """Who stays below never waits."""
    for _ in range(20):
        await spend(back_off, times=FREE - 1)
        clock.advance(60.001)
    assert await back_off.peek("k") is None


async def test_quiet_begins_anew(back_off: BackOff, clock: Clock) -> None:
    """After a wait, as long again and a minute, the first ones are free again; a moment before they aren't."""
    await spend(back_off)
    clock.advance(1.001)
    await spend(back_off, times=1)  # a wait of two seconds
    clock.advance(2 + 2 + 59)
    await spend(back_off, times=1)
    assert await back_off.peek("k") is not None
    clock.advance(4 + 4 + 60.01)
    await spend(back_off)
    assert await back_off.peek("k") is not None


async def test_forgiven(back_off: BackOff) -> None:
    """What was counted is forgotten, for that key alone; forgiving one that isn't known is nothing."""
    await spend(back_off)
    await spend(back_off, "other")
    await back_off.forgive("k")
    await back_off.forgive("unknown")
    assert await back_off.peek("other") is not None
    await spend(back_off)


async def test_a_look_counts_nothing(back_off: BackOff) -> None:
    """Looking is free, at a key that nobody has tried too."""
    for _ in range(20):
        assert await back_off.peek("k") is None
    await spend(back_off)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2_000_000)), max_size=60))
async def test_memory_and_redis_agree(redis_server_url: str, prefix: str, steps: list[tuple[str, int]]) -> None:
    """After any attempts at any times each says the same, to the millisecond."""
    clock = Clock()
    memory = MemoryBackOff(clock)
    redis = RedisBackOff(
        redis_server_url,
        fallback=MemoryBackOff(clock),
        prefix=f"{prefix}{time.monotonic_ns()}",
        timeout=PATIENT,
        clock=clock,
    )
    for key, milliseconds in steps:
        clock.advance(milliseconds / 1000)
        one, other = await memory.attempt(key, 3), await redis.attempt(key, 3)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert abs(one - other) < timedelta(milliseconds=1)
    await redis.close()
    assert redis.available


@given(st.lists(st.floats(0, 4000), min_size=1, max_size=300), st.integers(1, 20))
def test_what_always_holds(pauses: list[float], free: int) -> None:
    """No wait is over 15 minutes; in no minute are more admitted than are free twice, and the six that so many waits
    leave room for."""
    standing, now, admitted = Standing(), 1000.0, []
    for pause in pauses:
        now += pause
        wait = standing.attempt(now, free)
        assert 0 <= wait <= LONGEST_WAIT_SECONDS
        if not wait:
            admitted.append(now)
        assert standing.forget_at <= now + MEMORY_SECONDS
    for first, last in zip(admitted, admitted[2 * free + 6 :], strict=False):  # 1, 2, 4, 8, 16 s: six in a minute
        assert last - first >= 60
    assert all(a <= b for a, b in pairwise(admitted))


# In memory


async def test_memory_is_bounded(clock: Clock) -> None:
    """However many keys are invented; and none of them washes off what another has."""
    back_off = MemoryBackOff(clock, max_keys=100)
    await spend(back_off, "mine")
    for number in range(5000):
        await back_off.attempt(f"invented-{number}", FREE)
    assert len(back_off) <= 100 + SHARED
    assert await back_off.peek("mine") is not None


async def test_what_is_over_makes_room(clock: Clock) -> None:
    """Keys that are not remembered any more are dropped as others come."""
    back_off = MemoryBackOff(clock)
    for number in range(1000):
        await back_off.attempt(f"first-{number}", FREE)
    clock.advance(60.001)
    for number in range(1000):
        await back_off.attempt(f"second-{number}", FREE)
    assert len(back_off) <= 1001


async def test_a_shared_standing_is_kept(clock: Clock) -> None:
    """A key that was counted in a shared one is found there when there is room again."""
    back_off = MemoryBackOff(clock, max_keys=1)
    await back_off.attempt("first", 1)
    assert await back_off.attempt("late", 1) is None
    assert await back_off.peek("late") is not None
    await back_off.forgive("first")
    assert await back_off.peek("late") is not None
    assert await back_off.attempt("late", 1) is not None


# In Redis


async def test_replicas_share_it(redis_server_url: str, prefix: str) -> None:
    """What fails at one replica has to wait at the other, and is forgiven at both."""
    one, other = (
        RedisBackOff(redis_server_url, fallback=MemoryBackOff(), prefix=prefix, timeout=PATIENT) for _ in "ab"
    )
    await spend(one)
    assert await other.attempt("k", FREE) is not None
    await one.forgive("k")
    assert await other.peek("k") is None
    for each in (one, other):
        await each.close()


async def test_nothing_is_kept_for_ever(redis_server_url: str, prefix: str) -> None:
    """Every key expires, no later than it may be remembered."""
    import redis.asyncio

    back_off = RedisBackOff(redis_server_url, fallback=MemoryBackOff(), prefix=prefix, timeout=PATIENT)
    await spend(back_off)
    await back_off.attempt("another", FREE)
    async with redis.asyncio.from_url(redis_server_url) as client:
        for key in ("k", "another"):
            assert 0 < await client.pttl(prefix + key) <= MEMORY_SECONDS * 1000
    await back_off.close()


async def test_without_redis_it_never_opens() -> None:
    """While Redis is away this process counts alone, from where it was; after its return both have to agree."""
    with servers.Redis() as server:
        back_off = RedisBackOff(server.url(), fallback=MemoryBackOff(), timeout=PATIENT, cool_down=SOON)
        await spend(back_off, times=FREE - 1)
        server.kill()
        await spend(back_off, times=1)
        assert await back_off.attempt("k", FREE) is not None
        assert not back_off.available
        server.start()
        deadline = time.monotonic() + 30
        while not back_off.available:
            assert time.monotonic() < deadline
            await back_off.peek("another")
        await spend(back_off, "fresh")
        for _ in range(4):  # Redis, which lost everything, would let the key begin anew
            await back_off.attempt("k", FREE)
        wait = await back_off.peek("k")
        assert wait is not None
        await back_off.close()


async def test_a_clock_that_is_set_back(redis_server_url: str, prefix: str, clock: Clock) -> None:
    """Locks nobody for longer than the wait that was set."""
    back_off = RedisBackOff(
        redis_server_url, fallback=MemoryBackOff(clock), prefix=prefix, timeout=PATIENT, clock=clock
    )
    await spend(back_off)
    clock.advance(-7200)
    wait = await back_off.peek("k")
    assert wait is not None
    assert wait <= timedelta(seconds=1.01)
    await back_off.close()


@pytest.mark.parametrize("free", [1, 2])
async def test_few_are_free(back_off: BackOff, free: int) -> None:
    """The bound is whoever asks'."""
    for _ in range(free):
        assert await back_off.attempt("k", free) is None
    assert await back_off.attempt("k", free) is not None
