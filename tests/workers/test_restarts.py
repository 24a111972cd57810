"""How soon a worker that has died is started again."""

from __future__ import annotations

from artstore_grpc.workers.restarts import LONGEST_SECONDS, SETTLED_SECONDS, Restarts


def test_the_young_wait_longer_and_longer() -> None:
    """The first successor comes at once; those after it, as long as they die young, after twice the time each, up to
    the longest; one that has settled begins anew."""
    restarts = Restarts()
    waits = [restarts.wait(1.0) for _ in range(12)]
    assert waits == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert max(waits) == LONGEST_SECONDS
    assert restarts.wait(SETTLED_SECONDS) == 0
    assert [restarts.wait(1.0) for _ in range(3)] == [0, 0.5, 1]


def test_a_long_row_of_deaths() -> None:
    """A worker that has died for a year is still waited for, no longer than the longest."""
    restarts = Restarts()
    assert [restarts.wait(0.0) for _ in range(5_000)][-1] == LONGEST_SECONDS
