"""Back-off in this process: the embedded default, and what is left when Redis is away.

The rule is `Standing.attempt`: so many attempts in a minute are free; each one beyond sets a wait of 1, 2, 4 … seconds,
up to 15 minutes; who is quiet for as long as the last wait and a minute more begins anew. What is refused counts
nothing, so that a client that doesn't wait is not punished for that for ever.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta

WINDOW_SECONDS = 60.0
"""Within which so many attempts are free."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 900.0
"""15 minutes (ADR 0017)."""
MEMORY_SECONDS = 2 * LONGEST_WAIT_SECONDS + WINDOW_SECONDS
"""How long a key is remembered at most."""

MAX_KEYS = 65_536
"""Keys with a standing of their own, about 250 bytes each."""
SHARED = 1_024
"""Standings that the keys past that bound share."""


class Standing:
    """What is known of one key. Times are seconds of one clock."""

    __slots__ = ("count", "forget_at", "until", "wait", "window_ends")

    def __init__(self) -> None:
        self.count = 0
        self.window_ends = 0.0
        self.wait = 0.0
        """The last wait that was set; 0 while attempts are free."""
        self.until = 0.0
        self.forget_at = 0.0

    def attempt(self, now: float, free: int) -> float:
        """How long it has to wait; 0, and it is counted, if it hasn't."""
        if now < self.until:
            return self.until - now
        if now >= self.forget_at:
            self.count, self.wait, self.window_ends = 0, 0.0, now + WINDOW_SECONDS
        self.count += 1
        if self.wait or self.count >= free:
            self.wait = min(2 * self.wait or FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS)
            self.until = now + self.wait
            self.forget_at = self.until + self.wait + WINDOW_SECONDS
        else:
            self.forget_at = self.window_ends
        return 0.0


class MemoryBackOff:
    """Implements `BackOff` in bounded memory. Fails closed: no key that is still remembered is dropped for another.

    Keys past `max_keys` share a fixed number of standings by hash: dropping the oldest would let a caller wash off its
    own failures by inventing keys, and refusing new keys would let it shut out everybody else.

    clock: seconds that never go back. max_keys: at least 1. processes: how many admit the same callers without knowing
    of each other; each gives out its share of the free attempts, rounded down, but at least one.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, max_keys: int = MAX_KEYS, *, processes: int = 1
    ) -> None:
        self._clock = clock
        self._processes = processes
        self._max_keys = max_keys
        self._standings: OrderedDict[str | int, Standing] = OrderedDict()

    @property
    def available(self) -> bool:
        """True: it shares nothing."""
        return True

    def __len__(self) -> int:
        """How many standings are held: at most `max_keys` + `SHARED`."""
        return len(self._standings)

    async def attempt(self, key: str, free: int) -> timedelta | None:
        """As `BackOff.attempt`; never waits."""
        now = self._clock()
        share = free if self._processes == 1 else max(1, free // self._processes)
        return waiting((self._find(key, now) or self._new(key, now)).attempt(now, share))

    async def peek(self, key: str) -> timedelta | None:
        """As `BackOff.peek`; never waits."""
        now = self._clock()
        standing = self._find(key, now)
        return waiting(standing.until - now) if standing else None

    async def forgive(self, key: str) -> None:
        """As `BackOff.forgive`. What a key shares with others stays: it may be theirs."""
        self._standings.pop(key, None)

    async def close(self) -> None:
        """Holds no connection."""

    def _find(self, key: str, now: float) -> Standing | None:
        own = self._standings.get(key)
        if own is not None:
            return own
        # A key that may have been counted in a shared one stays there: a new one would forget that.
        shared = self._standings.get(slot(key))
        return shared if shared is not None and now < shared.forget_at else None

    def _new(self, key: str, now: float) -> Standing:
        """A standing of its own if there is room, else a shared one."""
        for _ in range(2):  # two looked at for each one made: memory follows the keys that are still remembered
            if self._standings:
                name, oldest = self._standings.popitem(last=False)
                if now < oldest.forget_at:
                    self._standings[name] = oldest
        return self._standings.setdefault(key if len(self._standings) < self._max_keys else slot(key), Standing())


def waiting(seconds: float) -> timedelta | None:
    """Rounded up: who comes when a wait that was rounded down has ended comes too early."""
    return timedelta(microseconds=int(seconds * 1_000_000) + 1) if seconds > 0 else None


def slot(key: str) -> int:
    """Which shared standing is a key's. Python keys its string hash anew in each process, so that nobody outside can
    choose whom to collide with."""
    return hash(key) % SHARED
