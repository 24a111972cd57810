"""A limiter whose decisions are counted, whichever it is."""

from __future__ import annotations

from datetime import timedelta

from artstore_grpc.counters import Decisions
from artstore_grpc.ephemeral.protocol import Limiter


class CountedLimiter:
    """Implements `Limiter` by another one. A peek counts only where it refuses: who is let through is charged next."""

    def __init__(self, limiter: Limiter) -> None:
        self.decisions = Decisions()
        self._limiter = limiter

    @property
    def available(self) -> bool:
        """As `Limiter.available`."""
        return self._limiter.available

    async def charge(self, key: str, limit: int) -> timedelta | None:
        """As `Limiter.charge`."""
        wait = await self._limiter.charge(key, limit)
        self.decisions.decided(admitted=wait is None, shared=self._limiter.available)
        return wait

    async def peek(self, key: str, limit: int) -> timedelta | None:
        """As `Limiter.peek`."""
        wait = await self._limiter.peek(key, limit)
        if wait is not None:
            self.decisions.refused += 1
        return wait

    async def close(self) -> None:
        """As `Limiter.close`."""
        await self._limiter.close()
