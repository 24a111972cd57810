"""When a schedule's times are: cron expressions of five fields in UTC, where no hour is missing or comes twice.

What the fields may say is cronsim's to know (Debian's cron, with `L`, `LW` and `#`). A sixth field for seconds, names
such as `@daily`, and an expression that never comes true are refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from cronsim import CronSim, CronSimError

MAX_LENGTH = 100
FORM = re.compile(r"[0-9A-Za-z*,/#-]+( [0-9A-Za-z*,/#-]+){4}")
A_DAY = timedelta(days=1)
REMEMBERED = 256
"""Schedules: to look at 28 years of one takes some 20 ms, and accounts share theirs."""
CYCLE = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2028, 1, 1, tzinfo=UTC))
"""After 28 years the same dates fall on the same days of the week again (until 2100)."""


def normal(text: str) -> str:
    """The expression with single spaces. Raises ValueError with what goes on after the field's name."""
    joined = " ".join(text.split())
    if len(text) > MAX_LENGTH or not FORM.fullmatch(joined):
        raise ValueError("must be a cron expression of five fields in UTC, such as 0 3 * * 1")
    try:
        next_time(joined, CYCLE[0])
    except CronSimError as error:
        raise ValueError(f"must be a cron expression of five fields in UTC; {str(error).lower()}") from None
    except LookupError:
        raise ValueError("must come true: there is no such date") from None
    return joined


def next_time(schedule: str, after: datetime) -> datetime:
    """The first time after another. Raises LookupError where there is none."""
    try:
        return next(CronSim(schedule, after.astimezone(UTC)))
    except StopIteration:
        raise LookupError(schedule) from None


@lru_cache(REMEMBERED)
def shortest_interval(schedule: str) -> timedelta:
    """The shortest time from one of its times to the next, however rarely that comes.

    Within a day from the hours and minutes themselves; from one day to the next by looking at 28 years of days, unless
    two that follow each other turn up before."""
    parsed = CronSim(schedule, CYCLE[0])
    minutes = sorted(60 * hour + minute for hour in parsed.hours for minute in parsed.minutes)
    within = min((later - earlier for earlier, later in pairwise(minutes)), default=None)
    over_night = shortest_days(parsed) - timedelta(minutes=minutes[-1] - minutes[0])
    return over_night if within is None else min(over_night, timedelta(minutes=within))


def shortest_days(parsed: CronSim) -> timedelta:
    """How many days there are at least from one on which it comes true to the next."""
    shortest, before = CYCLE[1] - CYCLE[0], None
    for number in range(shortest.days + 1):
        day = CYCLE[0].date() + number * A_DAY
        if day.month in parsed.months and parsed.match_day(day):
            shortest = min(shortest, day - before) if before else shortest
            before = day
            if shortest <= A_DAY:
                break
    return shortest
