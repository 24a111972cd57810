"""How much is logged: the least level, and which calls have a line. Both can change while the process runs.

Of calls that succeeded and were quick one in `sample` has its line, chosen at random: by turns, callers that take turns
would be told or left out for ever, and by anything that a caller sends it could keep itself out of the log.
"""

from __future__ import annotations

import logging
import random

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

SLOW_SECONDS = 1.0
"""A call that takes this long always has its line. A token takes a millisecond, one that needs bcrypt a quarter of a
second; past this something queued."""
MAX_SAMPLE = 1_000_000


class Verbosity:
    """What is told. Asked for every call, so that it is two comparisons."""

    __slots__ = ("_least", "level", "sample")

    def __init__(self, level: str, sample: int = 1) -> None:
        self.change(level, sample)

    def change(self, level: str, sample: int) -> None:
        """From now on: `level` is one of LEVELS, `sample` 1 (every call) to MAX_SAMPLE."""
        self.level = level
        self.sample = sample
        self._least = LEVELS[level]

    def tells(self, level: str) -> bool:
        """Whether lines of a level are told."""
        return LEVELS[level] >= self._least

    def weight(self, *, failed: bool, seconds: float) -> int:
        """How many calls the line of this one stands for: 1 where it failed or was slow; 0 where it has no line."""
        if self.sample == 1 or failed or seconds >= SLOW_SECONDS:
            return 1
        return self.sample if random.random() * self.sample < 1 else 0  # noqa: S311 - nothing depends on it
