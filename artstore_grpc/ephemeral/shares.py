"""Shares of limits, taken from the shared count a few requests at a time, so that not each of them asks for itself.

A share is counted in full when it is taken, and a process has one at a time for a key, to be spent within ten seconds.
So a window may hold as many requests over the limit as one share of each process was, and what is lost to the caller in
a minute is at most six: a share is at most a two-thousandth of a limit, 0.05 %. Limits below 4,000 a minute have none:
each of their requests is counted when it comes. Pure bookkeeping; who counts is not known here.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

LIFETIME_SECONDS = 10.0
PARTS = 2_000
MAX_SHARE = 64
"""A round trip costs as much as 64 warm tokens' limits in memory; more would only waste more."""
MAX_KEYS = 65_536


class Shares:
    """What is left of the share of each key. `clock`: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._asking: set[str] = set()

    def spend(self, key: str) -> bool:
        """Takes one request from what is left, if anything is."""
        left, until = self._left.get(key, (0, 0.0))
        if not left or self._clock() >= until:
            return False
        self._left[key] = left - 1, until
        return True

    def wanted(self, key: str, limit: int) -> int:
        """How many to take at once: one for a key that nobody has asked for in a while, since most of what it took
        would be lost, and for one whose share is being taken already. Who gets more ends it with `given_up`.
        """
        _, until = self._left.get(key, (0, 0.0))
        share = min(MAX_SHARE, limit // PARTS)
        if share < 2 or key in self._asking or self._clock() >= until + LIFETIME_SECONDS:
            return 1
        self._asking.add(key)
        return share

    def taken(self, key: str, count: int) -> None:
        """Keeps what was taken, less the one request that it was taken for."""
        left, until = self._left.get(key, (0, 0.0))
        now = self._clock()
        kept = left if now < until else 0  # taken by others while this one was asked for
        self._left[key] = kept + count - 1, until if kept else now + LIFETIME_SECONDS
        self._left.move_to_end(key)
        if len(self._left) > MAX_KEYS:
            self._left.popitem(last=False)

    def given_up(self, key: str) -> None:
        """No share of this key is being taken any more: the next caller may."""
        self._asking.discard(key)

    def clear(self) -> None:
        """Forgets all, when the count that they were taken from may have been lost."""
        self._left.clear()
