"""What parts count in: plain numbers, which telemetry/metrics.py makes into metrics when they are asked for.

Who counts is the event loop's thread alone; who reads may be any, and reads copies that are made in one step. The
library's own counters take a lock, and walk every bucket, for each: 10 µs of every call. Nothing is known here of
names or labels.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a warm token takes under 1 ms, bcrypt a quarter of a second."""
HASH_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
"""Seconds of one bcrypt: closest around the 235 ms that cost 12 takes on a free core."""
WAIT_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds until a database connection is there: at once from the pool, milliseconds for a new one, 2 s at most."""


class Distribution:
    """A histogram's numbers: how many fell into each bucket, the one past the last included, and their sum."""

    __slots__ = ("bounds", "buckets", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.buckets)

    def cumulated(self) -> tuple[list[int], float]:
        """As Prometheus has it: each bucket with those below it, and the sum."""
        return list(accumulate(self.buckets.copy())), self.sum


class Lookups:
    """How often a cache had what was looked for."""

    __slots__ = ("hits", "misses")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0


class Decisions:
    """What a limiter has decided. `degraded` are those that it admitted by this process's own count alone, since what
    all share did not answer; what is refused is refused by whichever count."""

    __slots__ = ("admitted", "degraded", "refused")

    def __init__(self) -> None:
        self.admitted = 0
        self.refused = 0
        self.degraded = 0

    def decided(self, *, admitted: bool, shared: bool) -> None:
        """Counts a decision; `shared`: it was made by what all processes share."""
        if not admitted:
            self.refused += 1
        elif shared:
            self.admitted += 1
        else:
            self.degraded += 1
