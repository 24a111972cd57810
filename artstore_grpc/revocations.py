"""The cacheable twin of the trust feed: what is refused, as a signed JWT with a `typ` of its own.

Its `iat` is when this replica last knew itself up to date, so that one that is cut off from the database signs no
freshness that it doesn't have; its `exp` is LIFETIME later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import orjson

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.keys import Keyring
from artstore_grpc.replica import Replica
from artstore_grpc.trust import Snapshot

TYPE = "revocations+jwt"
"""Never an access token's `typ` (RFC 8725 §3.11)."""
MAX_AGE = timedelta(seconds=5)
"""How long it may be kept without asking again."""
LIFETIME = timedelta(seconds=60)
"""From `iat` to `exp`: a verifier that can't get a newer one does what its service chose."""
MIN_INTERVAL = timedelta(seconds=1)
"""The least time between two signatures: with 100,000 revocations one costs some 50 ms."""


class Revocations:
    """Signs the list when it is asked for, and gives the same again until something changes or half its life is over:
    for who asks again that is a 304."""

    def __init__(
        self,
        replica: Replica,
        keyring: Keyring,
        now: Callable[[], datetime],
        *,
        issuer: str,
    ) -> None:
        self._replica = replica
        self._keyring = keyring
        self._now = now
        self._issuer = issuer
        self._signing = asyncio.Lock()
        self._signed = ""
        self._of = (0, 0)
        self._sign_time: datetime | None = None

    async def signed(self) -> str:
        """The JWT. Raises StoreUnavailable where all that this replica could sign has expired."""
        async with self._signing:
            if not self._current():
                await self._sign()
            return self._signed

    def _current(self) -> bool:
        age = None if self._sign_time is None else self._now() - self._sign_time
        if age is None or age < timedelta(0):
            return False
        of = (self._replica.trust.generation, self._replica.trust.changed)
        return age < (LIFETIME / 2 if of == self._of else MIN_INTERVAL)

    async def _sign(self) -> None:
        now = self._now()
        staleness = self._replica.staleness_seconds
        if staleness >= LIFETIME.total_seconds():
            raise StoreUnavailable("the revocations that this replica knows are too old to be signed")
        trust = self._replica.trust
        self._of = (trust.generation, trust.changed)
        snapshot = trust.current()
        self._signed = await asyncio.to_thread(self._sign_list, snapshot, int(now.timestamp() - staleness))
        self._sign_time = now

    def _sign_list(self, snapshot: Snapshot, issued: int) -> str:
        refused = [account for account in snapshot.accounts if account.refused]
        claims = {
            "iss": self._issuer,
            "iat": issued,
            "exp": issued + int(LIFETIME.total_seconds()),
            "sequence": snapshot.sequence,
            "hash": snapshot.hash.hex(),
            "jtis": dict(snapshot.revoked),
            "accounts": {account.id: "deleted" if account.deleted else "suspended" for account in refused},
            "epochs": {account.id: account.epoch for account in snapshot.accounts if account.epoch},
        }
        return self._keyring.sign_as(TYPE, orjson.dumps(claims))
