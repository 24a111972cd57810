"""Time that can be relied on: a clock that nobody sets, and what it shows of one that can be set."""

from __future__ import annotations

import time

BOOT = getattr(time, "CLOCK_BOOTTIME", None)
"""Counts while the machine sleeps: what a suspended machine held is old when it wakes up. Not every system has it."""

MEMORY_SECONDS = 3600.0
"""How long a reading of a clock counts against later ones that are behind it. A clock that was wrong and was set right
is believed again after that."""


def steady_seconds() -> float:
    """Seconds of a clock that nobody sets."""
    return time.monotonic() if BOOT is None else time.clock_gettime(BOOT)


class IssuerTime:
    """What time it is at least, whatever this machine's clock says: no earlier than it once said, nor than a token's
    `iat`, and the time since then. So a clock that goes back, or is behind, makes no expired token live again."""

    def __init__(self) -> None:
        self._ahead = float("-inf")
        self._until = float("-inf")

    def saw(self, seconds: float, steady: float) -> None:
        """It is at least `seconds` since 1970 now, at `steady` of a clock that nobody sets."""
        if seconds - steady >= self._ahead or steady >= self._until:
            self._ahead, self._until = seconds - steady, steady + MEMORY_SECONDS

    def at_least(self, steady: float) -> float:
        return self._ahead + steady if steady < self._until else float("-inf")
