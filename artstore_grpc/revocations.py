"""The cacheable twin of the trust feed: what is refused, as a signed JWT with a `typ` of its own.

Its `iat` is when this replica last knew itself up to date, so that one that is cut off from the database signs no
freshness that it doesn't have; its `exp` is LIFETIME later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from artstore_grpc.errors import Overloaded, StoreUnavailable
from artstore_grpc.keys import Keyring
from artstore_grpc.replica import Replica
from artstore_grpc.trust import Snapshot

TYPE = "revocations+jwt"
"""Never an access token's `typ` (RFC 8725 §3.11)."""
MAX_AGE = timedelta(seconds=5)
"""How long it may be kept without asking again."""
LIFETIME = timedelta(seconds=60)
"""From `iat` to `exp`: a verifier that can't get a newer one does what its service chose."""
BYTES_A_SECOND = 64 * 1024 * 1024
"""Of lists, by one door of one process: nine of 100,000 revocations. A 304 costs nothing of it."""
MIN_INTERVAL = timedelta(seconds=1)
"""The least time between two signatures: with 100,000 revocations one costs some 50 ms."""


class Budget:
    """Bounds how many bytes of lists are handed out: anybody may ask, and who doesn't read has us hold what they asked
    for."""

    def __init__(self) -> None:
        self._second = 0
        self._left = 0

    def spend(self, size: int) -> None:
        """Counts a list that is sent. Raises Overloaded past BYTES_A_SECOND; small ones always find room for one."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._left = second, BYTES_A_SECOND
        if self._left <= 0:
            raise Overloaded(reason="TOO_MANY_LISTS", retry_after=MIN_INTERVAL)
        self._left -= size


@dataclass(frozen=True, slots=True)
class Signed:
    """A list that was signed: what it says, as of which change, and when it was made."""

    text: str
    of: tuple[int, int]
    sign_time: datetime
    expire_time: datetime


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
        self._signing: asyncio.Task[None] | None = None
        self._signed: Signed | None = None

    async def signed(self) -> Signed:
        """The list. Raises StoreUnavailable where all that this replica could sign has expired."""
        if not self._current():
            if self._signing is None or self._signing.done():
                self._signing = asyncio.create_task(self._sign())
            await asyncio.shield(self._signing)  # it ends whoever goes away
        assert self._signed is not None
        return self._signed

    def _of(self) -> tuple[int, int]:
        return self._replica.trust.generation, self._replica.trust.changed

    def _current(self) -> bool:
        signed, now = self._signed, self._now()
        if signed is None or now < signed.sign_time or now >= signed.expire_time:
            return False
        if now - signed.sign_time < MIN_INTERVAL:
            return True
        return signed.of == self._of() and signed.expire_time - now >= LIFETIME / 2

    async def _sign(self) -> None:
        now, of, staleness = self._now(), self._of(), self._replica.staleness_seconds
        if staleness >= LIFETIME.total_seconds():
            raise StoreUnavailable("the revocations that this replica knows are too old to be signed")
        issued = int(now.timestamp() - staleness)
        text = await asyncio.to_thread(self._text, self._replica.trust.current(), issued)
        self._signed = Signed(text, of, now, datetime.fromtimestamp(issued, UTC) + LIFETIME)

    def _text(self, snapshot: Snapshot, issued: int) -> str:
        refused = [account for account in snapshot.accounts if account.refused]
        claims = {
            "iss": self._issuer,
            "iat": issued,
            "exp": issued + int(LIFETIME.total_seconds()),
            "sequence": snapshot.sequence,
            "hash": snapshot.hash.hex(),
            "jtis": {jti: exp for jti, (exp, _) in snapshot.revoked},
            "accounts": {account.id: "deleted" if account.deleted else "suspended" for account in refused},
            "epochs": {account.id: account.epoch for account in snapshot.accounts if account.epoch},
        }
        return self._keyring.sign_as(TYPE, orjson.dumps(claims))
