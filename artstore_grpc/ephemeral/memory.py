"""Counts requests in this process: the embedded default, and what is left when Redis is away.

Decides who is within their limit by the buckets of `protocol`. Knows neither accounts nor what a key stands for, and
forgets everything at a restart.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta

from artstore_grpc.ephemeral.protocol import WINDOW_SECONDS

BUCKETS = WINDOW_SECONDS + 1
"""The second that is still running, and the 60 before it: with fewer a request would be forgotten too early."""

MAX_KEYS = 65_536
"""Keys with a window of their own. One that was charged once takes 0.4 KiB, one charged every second 3.2 KiB."""

SHARED_WINDOWS = 1_024
"""Windows that the keys past that bound share."""


class _Window:
    """The non-empty buckets of one key, oldest first, and their sum."""

    __slots__ = ("counts", "name", "seconds", "total")

    def __init__(self, name: str | int) -> None:
        self.name = name
        self.seconds: list[int] = []
        self.counts: list[int] = []
        self.total = 0

    def idle(self, oldest: int) -> bool:
        return not self.seconds or self.seconds[-1] < oldest

    def forget_before(self, oldest: int) -> None:
        # At most 61 entries: shifting a list is cheaper than a deque, and takes a fifth of its memory.
        while self.seconds and self.seconds[0] < oldest:
            del self.seconds[0]
            self.total -= self.counts.pop(0)

    def add(self, second: int) -> bool:
        """Whether this opened a bucket."""
        self.total += 1
        if self.seconds and self.seconds[-1] == second:
            self.counts[-1] += 1
            return False
        self.seconds.append(second)
        self.counts.append(1)
        return True

    def wait(self, now: float, limit: int) -> timedelta:
        """Until fewer than `limit` are left; with a limit of none, until none is left."""
        left, freed = self.total, int(now)
        for second, count in zip(self.seconds, self.counts, strict=True):
            left -= count
            freed = second
            if left < limit:
                break
        # Rounded up, and past what the caller's own addition may lose: a wait that ends early is a second refusal.
        return timedelta(microseconds=int((freed + BUCKETS - now) * 1_000_000) + 2)


class MemoryLimiter:
    """Implements `Limiter` in bounded memory. Fails closed: no key that still has counts is ever forgotten.

    Live keys past `max_keys` share a fixed number of windows by hash. Evicting the oldest would let a caller wash off
    its own counts by inventing keys, and refusing new keys would let it shut out everybody else; sharing can only
    refuse some of them early, and ends when the shared window is idle.

    clock: seconds, never negative nor going back. max_keys: at least 1. processes: how many processes admit the same
    callers without knowing of each other; each gives out its share of a limit, rounded down, but at least one request.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS, *, processes: int = 1
    ) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._processes = processes
        # By the second of the last charge, oldest first, so that idle windows are found without a search.
        self._windows: OrderedDict[str | int, _Window] = OrderedDict()

    @property
    def available(self) -> bool:
        """True: it shares nothing."""
        return True

    def __len__(self) -> int:
        """How many windows are held: at most `max_keys` + `SHARED_WINDOWS`."""
        return len(self._windows)

    async def charge(self, key: str, limit: int) -> timedelta | None:
        """As `Limiter.charge`; never waits."""
        now = self._clock()
        second = int(now)
        window = self._windows.get(key) or self._claim(key, second)
        window.forget_before(second - WINDOW_SECONDS)
        share = self._share(limit)
        if window.total >= share:
            return window.wait(now, share)
        if window.add(second):
            self._windows.move_to_end(window.name)
        return None

    async def peek(self, key: str, limit: int) -> timedelta | None:
        """As `Limiter.peek`; never waits."""
        now = self._clock()
        window = self._windows.get(key) or self._windows.get(_slot(key)) or _Window(key)
        window.forget_before(int(now) - WINDOW_SECONDS)
        share = self._share(limit)
        return None if window.total < share else window.wait(now, share)

    async def close(self) -> None:
        """Holds no connection."""

    def _share(self, limit: int) -> int:
        return limit if self._processes == 1 or limit < 1 else max(1, limit // self._processes)

    def _claim(self, key: str, second: int) -> _Window:
        """The window of a key that has none of its own: a new one if there is room, else a shared one."""
        self._drop_idle(second - WINDOW_SECONDS)
        shared = self._windows.get(_slot(key))
        # A key that may have counts in a shared window stays there: a new one would forget them.
        if shared and not shared.idle(second - WINDOW_SECONDS):
            return shared
        name = key if len(self._windows) < self._max_keys else _slot(key)
        return self._windows.setdefault(name, _Window(name))

    def _drop_idle(self, oldest: int) -> None:
        # Two out for each one in: memory follows the live keys, and no request pays for a whole crowd that has left.
        # Past the bound as many as make room: the shared windows, once.
        dropped = 0
        while self._windows and next(iter(self._windows.values())).idle(oldest):
            if dropped >= 2 and len(self._windows) < self._max_keys:
                return
            self._windows.popitem(last=False)
            dropped += 1


def _slot(key: str) -> int:
    # Python keys its string hash anew in each process, so that nobody outside can choose whom to collide with.
    return hash(key) % SHARED_WINDOWS
