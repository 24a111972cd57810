"""What every `Limiter` promises, on memory and on Redis alike."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artstore_grpc.ephemeral.protocol import WINDOW_SECONDS, Limiter
from tests.ephemeral.conftest import Clock

SECOND = timedelta(seconds=1)
fresh_keys = map(str, count())

# The examples share the limiter, each with a key of its own and the clock going on.
examples = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
gaps = st.one_of(st.just(0.0), st.floats(0, 2), st.floats(0, 70), st.sampled_from([0.25, 0.75, 1.0, 59.0, 60.0, 61.0]))


async def spend(limiter: Limiter, key: str, limit: int, times: int) -> int:
    """How many of so many charges were admitted."""
    return sum([await limiter.charge(key, limit) is None for _ in range(times)])


async def test_a_whole_limit_may_be_spent_at_once_and_no_more(limiter: Limiter) -> None:
    """A quiet caller gets exactly `limit` requests in a burst, and then a wait of at most 61 seconds."""
    assert await spend(limiter, "a", 20, 20) == 20
    wait = await limiter.charge("a", 20)
    assert wait is not None
    assert timedelta() < wait <= 61 * SECOND


async def test_after_the_wait_one_is_admitted_and_not_before(limiter: Limiter, clock: Clock) -> None:
    """Who waits as told is admitted; a millisecond less is refused."""
    await spend(limiter, "a", 3, 3)
    wait = await limiter.charge("a", 3)
    assert wait is not None
    clock.advance(wait.total_seconds() - 0.001)
    assert await limiter.charge("a", 3) is not None
    clock.advance(0.001)
    assert await limiter.charge("a", 3) is None


async def test_requests_come_back_as_they_were_spent(limiter: Limiter, clock: Clock) -> None:
    """The wait is for the oldest second alone, and frees what was spent in it."""
    await spend(limiter, "a", 5, 2)
    clock.advance(10)
    await spend(limiter, "a", 5, 3)
    wait = await limiter.charge("a", 5)
    assert wait is not None
    assert wait < 51 * SECOND
    clock.advance(wait.total_seconds())
    assert await spend(limiter, "a", 5, 5) == 2


async def test_a_request_counts_for_sixty_seconds(limiter: Limiter, clock: Clock) -> None:
    """Neither forgotten at 60 seconds, nor remembered at 61."""
    assert await limiter.charge("a", 1) is None
    clock.advance(60)
    assert await limiter.charge("a", 1) is not None
    clock.advance(1)
    assert await limiter.charge("a", 1) is None


async def test_a_refused_charge_counts_nothing(limiter: Limiter, clock: Clock) -> None:
    """A caller that goes on knocking doesn't shut itself out."""
    await spend(limiter, "a", 2, 2)
    clock.advance(30)
    assert await spend(limiter, "a", 2, 50) == 0
    clock.advance(31)
    assert await spend(limiter, "a", 2, 3) == 2


async def test_peek_answers_as_charge_would_and_counts_nothing(limiter: Limiter) -> None:
    """Any number of peeks leaves the limit as it was, and both report the same wait."""
    assert [await limiter.peek("a", 2) for _ in range(5)] == [None] * 5
    assert await spend(limiter, "a", 2, 2) == 2
    assert await limiter.peek("a", 2) == await limiter.charge("a", 2) is not None


async def test_keys_do_not_affect_each_other(limiter: Limiter) -> None:
    """One caller over its limit costs another nothing, whatever their keys look like."""
    keys = ["a", "a:", "", "ä", "a b", "total", "oldest", "1000000"]
    for key in keys:
        assert await spend(limiter, key, 3, 4) == 3


async def test_a_raised_limit_holds_at_once(limiter: Limiter) -> None:
    """What was spent stays spent, and the difference may be used."""
    assert await spend(limiter, "a", 3, 4) == 3
    assert await spend(limiter, "a", 10, 20) == 7


async def test_a_lowered_limit_holds_at_once(limiter: Limiter, clock: Clock) -> None:
    """The wait is then until enough seconds have gone for one more under the new limit."""
    for _ in range(5):
        await limiter.charge("a", 10)
        clock.advance(1)
    wait = await limiter.charge("a", 2)
    assert wait is not None
    assert 58 * SECOND < wait < 60 * SECOND
    clock.advance(wait.total_seconds() - 0.001)
    assert await limiter.peek("a", 2) is not None
    clock.advance(0.001)
    assert await spend(limiter, "a", 2, 2) == 1


async def test_a_limit_of_none_admits_nothing(limiter: Limiter) -> None:
    """Not even the first, and there is something to wait for."""
    for limit in (0, -1):
        assert await limiter.peek("a", limit) == await limiter.charge("a", limit) is not None
    assert await limiter.charge("a", 1) is None


async def test_a_new_minute_is_a_new_limit(limiter: Limiter, clock: Clock) -> None:
    """However long the pause."""
    for pause in (61, 62, 120, 3_600, 86_400):
        assert await spend(limiter, "a", 4, 5) == 4
        clock.advance(pause)


@examples
@given(limit=st.integers(1, 8), arrivals=st.lists(gaps, max_size=60))
async def test_no_minute_holds_more_than_the_limit(
    limiter: Limiter, clock: Clock, limit: int, arrivals: list[float]
) -> None:
    """Whatever the arrivals: any 60 seconds hold at most `limit` admitted requests."""
    key, admitted = next(fresh_keys), []
    for gap in arrivals:
        clock.advance(gap)
        if await limiter.charge(key, limit) is None:
            admitted.append(clock.now)
    for first, last in zip(admitted, admitted[limit:], strict=False):
        assert last - first > WINDOW_SECONDS


@examples
@given(calls=st.lists(st.tuples(gaps, st.integers(1, 8), st.booleans()), max_size=60))
async def test_it_agrees_with_a_list_of_every_request(
    limiter: Limiter, clock: Clock, calls: list[tuple[float, int, bool]]
) -> None:
    """With limits that change: admitted and refused, and the wait, as one finds by counting all that were admitted."""
    key, admitted = next(fresh_keys), list[int]()
    for gap, limit, charging in calls:
        clock.advance(gap)
        live = [second for second in admitted if second >= int(clock.now) - WINDOW_SECONDS]
        wait = await (limiter.charge if charging else limiter.peek)(key, limit)
        if len(live) < limit:
            assert wait is None
            admitted += [int(clock.now)] * charging
        else:
            freed = live[len(live) - limit] + WINDOW_SECONDS + 1
            assert wait is not None
            assert abs(wait.total_seconds() - (freed - clock.now)) < 0.00001
