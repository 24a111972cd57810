"""The authority's clock: the real time, moved by what a test adds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """What time it is to the authority. Verifiers have clocks of their own, which this doesn't move."""

    def __init__(self, moved: Callable[[], None] = lambda: None) -> None:
        self._offset = timedelta(0)
        self._moved = moved

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def advance(self, by: timedelta | float) -> None:
        """Moves the clock, by a timedelta or by seconds; it runs on from there. Open trust feeds notice at once."""
        self._offset += by if isinstance(by, timedelta) else timedelta(seconds=by)
        self._moved()

    def set(self, time: datetime) -> None:
        """Sets the clock to an aware time; it runs on from there."""
        self._offset = time - datetime.now(UTC)
        self._moved()
