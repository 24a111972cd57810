"""When a worker that has died is started again. Pure: time is told to it."""

from __future__ import annotations

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
SETTLED_SECONDS = 60.0
"""Who has lived so long after its start begins with a clean record."""


class Restarts:
    """The record of one place among the workers. A worker that lived for a while is replaced at once; of those that die
    young the second waits half a second, each further one twice as long as the one before, at most 30 seconds."""

    def __init__(self) -> None:
        self._young = 0

    def wait(self, lived_seconds: float) -> float:
        """How many seconds the next one has to wait, after one that lived so long."""
        self._young = 0 if lived_seconds >= SETTLED_SECONDS else self._young + 1
        if self._young < 2:
            return 0.0
        return float(min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(self._young - 2, 10)))
