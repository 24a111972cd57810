"""What failed authentications cost whoever causes them, and nobody else (DESIGN §4, Limits).

Two standings: of an account's one secret as tried from one source, and of a source over all accounts. Never of an
account alone, or anybody could shut it out. Sources are networks as `addresses.network` has them. A credential that a
tag in memory proves never comes here. The rule of waiting is ephemeral/back_off.py's.
"""

from __future__ import annotations

import hashlib

from artstore_grpc.addresses import network
from artstore_grpc.ephemeral.protocol import BackOff
from artstore_grpc.errors import RateLimited

FREE_FAILURES = 10
"""Attempts a minute by (account, secret id, source) that cost nothing (DESIGN §4)."""


class Failures:
    """Admits attempts, and counts those that failed. `free_of_source` is how many failures a minute of one source cost
    nothing, whatever the accounts."""

    def __init__(self, back_off: BackOff, *, free_of_source: int) -> None:
        self._back_off = back_off
        self._free_of_source = free_of_source

    async def admit(self, client_id: str, what: str, source: str, *, guessed: bool, about: str) -> None:
        """Counts an attempt at `what`, a secret's id, before it is looked at; so of many at once none is looked at for
        nothing. `guessed`: a secret that could have been, so that the source's failures hold it up too. A first use of
        a secret of ours is none: who fails often behind a shared address must not keep its neighbours from new secrets.
        `about` goes into the cause. Raises RateLimited, alike for every account."""
        wait, whose = None, "source"
        if guessed:
            wait = await self._back_off.peek(key_of("", "source", source))
        if wait is None:
            whose = "secret and source"
            wait = await self._back_off.attempt(key_of(client_id, what, source), FREE_FAILURES)
        if wait is not None:
            cause = f"backing off, by {whose}: {about}"
            refused = RateLimited(reason="TOO_MANY_FAILURES", retry_after=wait, cause=cause)
            refused.denied = True
            raise refused

    async def failed(self, source: str) -> None:
        """Counts an attempt that was looked at and failed."""
        await self._back_off.attempt(key_of("", "source", source), self._free_of_source)

    async def succeeded(self, client_id: str, what: str, source: str) -> None:
        """Forgets the attempts at a secret that has proved itself. The source's stay: its other accounts may fail."""
        await self._back_off.forgive(key_of(client_id, what, source))


def key_of(client_id: str, what: str, source: str) -> str:
    """What attempts are counted by: a digest, since a stranger chooses what goes in."""
    return hashlib.blake2b(f"{client_id}|{what}|{network(source)}".encode(), digest_size=16).hexdigest()
