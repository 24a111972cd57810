"""What the pipeline asks of a limiter, and client authentication of a back-off and of used assertions.

A limit is a number of requests in any 60 seconds. Time is cut into buckets of one second and the last 61 of them are
counted, so that no 60 seconds ever hold more than the limit, while a quiet caller may spend the whole limit at once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

WINDOW_SECONDS = 60


class Limiter(Protocol):
    """Counts by key. Fails closed: with its backend down it counts in this process, it never opens."""

    @property
    def available(self) -> bool:
        """Whether what is counted is shared as far as it should be; False while only this process counts."""

    async def charge(self, key: str, limit: int) -> timedelta | None:
        """Counts one request if fewer than `limit` were counted in the window, else counts nothing.

        Returns None when it was admitted, else how long until the next one will be.
        """

    async def peek(self, key: str, limit: int) -> timedelta | None:
        """As `charge`, but counts nothing."""

    async def close(self) -> None:
        """Closes every connection."""


class BackOff(Protocol):
    """Slows down attempts by key: the first ones in a minute cost nothing, each one beyond has to wait twice as long as
    the one before. Fails closed: with its backend down it counts in this process, it never opens."""

    @property
    def available(self) -> bool:
        """As `Limiter.available`."""

    async def attempt(self, key: str, free: int) -> timedelta | None:
        """Counts an attempt, unless the key has to wait: then it counts nothing, and returns for how long. `free` is
        how many in a minute cost nothing."""

    async def peek(self, key: str) -> timedelta | None:
        """How long the key has to wait; None if it hasn't. Counts nothing."""

    async def forgive(self, key: str) -> None:
        """Forgets what was counted."""

    async def close(self) -> None:
        """Closes every connection."""


class UsedAssertions(Protocol):
    """Remembers which client assertions were used. Fails closed: where it can't be told, it raises."""

    async def use(self, key: bytes, expire_time: datetime, now: datetime) -> bool:
        """Notes an assertion as used until `expire_time`; False when it was used before. Of several at once one is
        the first, in whatever process. Raises Unavailable or StoreUnavailable."""

    async def close(self) -> None:
        """Closes every connection."""
