"""Schedules: which expressions are taken, what their times are, and how close two of them come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc import schedules

START = datetime(2030, 1, 1, tzinfo=UTC)

NONSENSE = [
    "",
    "* * * *",
    "0 3 * * 1 2030",
    "*/10 0 3 * * 1",
    "@daily",
    "@reboot",
    "60 3 * * 1",
    "0 24 * * *",
    "0 0 0 * *",
    "0 0 * 13 *",
    "0 0 * * 8",
    "0 0 30 2 *",
    "0 0 31 4,6,9,11 *",
    "0 3 * * ١",
    "0 3 * * 1²",
    "0 3 * * MONDAY",
    "0 3 * * 1; rm -rf /",
    "0 3 5-1 * *",
    "*/0 * * * *",
    "0 3 * * 1#6",
    "0,1,2," * 20 + "3 * * * *",
]


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense(text: str) -> None:
    """No five fields, a value that is out of range, seconds, names, and what never comes true."""
    with pytest.raises(ValueError, match=r"^must "):
        schedules.normal(text)


@pytest.mark.parametrize(
    "text",
    ["0 3 * * 1", "0 3 * * MON", "0 0 L * *", "0 0 * * 1#1", "0 0 29 2 *", "15 */6 1-7 JAN,JUL *", "59 23 LW * *"],
)
def test_expressions(text: str) -> None:
    """Debian's, with names of days and months, `L`, `LW` and `#`; spaces don't matter."""
    assert schedules.normal(f"  {text.replace(' ', '   ')} ") == text


def test_times_are_utc() -> None:
    """Every day of a year at the same hour of UTC: no summer time moves it, or has it twice or not at all."""
    times = [START]
    for _ in range(366):
        times.append(schedules.next_time("30 2 * * *", times[-1]))
    assert {(time.hour, time.minute, time.tzinfo) for time in times[1:]} == {(2, 30, UTC)}
    assert {later - earlier for earlier, later in pairwise(times[1:])} == {timedelta(days=1)}


FIELD = {
    "minute": st.integers(0, 59),
    "hour": st.integers(0, 23),
    "day": st.integers(1, 28),
    "month": st.integers(1, 12),
    "weekday": st.integers(0, 6),
}


def field(name: str) -> st.SearchStrategy[str]:
    listed = st.lists(FIELD[name], min_size=1, max_size=3).map(lambda values: ",".join(map(str, values)))
    return st.just("*") | listed if name not in ("minute",) else listed


@given(st.tuples(*map(field, FIELD)).map(" ".join))
def test_shortest_interval(schedule: str) -> None:
    """No two of its times are closer than what we say, and some two are exactly as close."""
    shortest = schedules.shortest_interval(schedules.normal(schedule))
    closest, time = timedelta.max, START
    for _ in range(400):
        following = schedules.next_time(schedule, time)
        if time != START:
            closest = min(closest, following - time)
        time = following
        if closest == shortest:
            break
    assert closest >= shortest
    if time - START > timedelta(days=28 * 366):
        assert closest == shortest
