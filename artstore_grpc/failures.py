"""What failed authentications cost whoever causes them, and nobody else (ADR 0017).

Two standings: of an account's one secret as tried from one source, and of a source over all accounts. Never of an
account alone, or anybody could shut it out. Sources are networks as `addresses.network` has them. A credential that a
tag in memory proves never comes here. The rule of waiting is ephemeral/back_off.py's.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

from artstore_grpc.addresses import network
from artstore_grpc.counters import Decisions
from artstore_grpc.ephemeral.protocol import BackOff
from artstore_grpc.errors import RateLimited

FREE_FAILURES = 10
"""Attempts a minute by (account, secret id, source) that cost nothing (ADR 0017)."""
NEIGHBOURS_RETRY = timedelta(seconds=5)
"""The longest wait that is told for a source's failures."""


class Failures:
    """Admits attempts, and counts those that failed. `free_of_source` is how many failures a minute of one source cost
    nothing, whatever the accounts. `decisions` are what was admitted and refused."""

    def __init__(self, back_off: BackOff, *, free_of_source: int) -> None:
        self.decisions = Decisions()
        self._back_off = back_off
        self._free_of_source = free_of_source

    async def look_at_source(self, source: str, about: str) -> None:
        """Raises RateLimited where a source has to wait, for a few seconds at most: it may be told to a neighbour that
        has done nothing, and whose account is read meanwhile. Counts nothing. `about` goes into the cause."""
        wait = await self._back_off.peek(key_of("", "source", source))
        if wait is not None:
            self.decisions.refused += 1
        refuse(min(wait, NEIGHBOURS_RETRY) if wait else None, "source", about)

    async def admit(self, client_id: str, what: str, source: str, about: str) -> None:
        """Counts an attempt at `what`, a secret's id, before it is looked at, so that of many at once none is looked at
        for nothing. Raises RateLimited where attempts at it have to wait, alike for every account."""
        wait = await self._back_off.attempt(key_of(client_id, what, source), FREE_FAILURES)
        self.decisions.decided(admitted=wait is None, shared=self._back_off.available)
        refuse(wait, "secret and source", about)

    async def failed(self, source: str) -> None:
        """Counts an attempt that was looked at and failed."""
        await self._back_off.attempt(key_of("", "source", source), self._free_of_source)

    async def succeeded(self, client_id: str, what: str, source: str) -> None:
        """Forgets the attempts at a secret that has proved itself. The source's stay: its other accounts may fail."""
        await self._back_off.forgive(key_of(client_id, what, source))


def refuse(wait: timedelta | None, whose: str, about: str) -> None:
    """Raises RateLimited where there is a wait."""
    if wait is not None:
        refused = RateLimited(reason="TOO_MANY_FAILURES", retry_after=wait, cause=f"backing off, by {whose}: {about}")
        refused.denied = True
        raise refused


def key_of(client_id: str, what: str, source: str) -> str:
    """What attempts are counted by: a digest, since a stranger chooses what goes in."""
    return hashlib.blake2b(f"{client_id}|{what}|{network(source)}".encode(), digest_size=16).hexdigest()
