"""The cacheable twin of the trust feed: what is refused, as a signed JWT with a `typ` of its own.

Its `iat` is when this replica last knew itself up to date, so that one that is cut off from the database signs no
freshness that it doesn't have; its `exp` is LIFETIME later.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

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
ETAG_CHARACTERS = 32
MIN_INTERVAL = timedelta(seconds=1)
"""The least time between two signatures: with 100,000 revocations one costs some 50 ms."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A list that was signed: what it says, as of which change and by which keys, and when it was made."""

    text: str
    etag: str
    """What tells it from every other."""
    of: tuple[int, int]
    keys: int
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
        for _ in range(2):  # while it is signed the key may be revoked
            if self._current():
                break
            if self._signing is None or self._signing.done():
                self._signing = asyncio.create_task(self._sign())
            await asyncio.shield(self._signing)  # it ends whoever goes away
        assert self._signed is not None
        return self._signed

    def _of(self) -> tuple[int, int]:
        return self._replica.trust.generation, self._replica.trust.changed

    def _current(self) -> bool:
        signed, now = self._signed, self._now()
        if signed is None or signed.keys != self._keyring.version:
            return False  # the key that signed it may have been revoked
        if now < signed.sign_time or now >= signed.expire_time:
            return False
        if now - signed.sign_time < MIN_INTERVAL:
            return True
        return signed.of == self._of() and signed.expire_time - now >= LIFETIME / 2

    async def _sign(self) -> None:
        now, of, keys, staleness = self._now(), self._of(), self._keyring.version, self._replica.staleness_seconds
        if staleness >= LIFETIME.total_seconds():
            raise StoreUnavailable("the revocations that this replica knows are too old to be signed")
        issued = int(now.timestamp() - staleness)
        text, etag = await asyncio.to_thread(self._text, self._replica.trust.current(), issued)
        self._signed = Signed(text, etag, of, keys, now, datetime.fromtimestamp(issued, UTC) + LIFETIME)

    def _text(self, snapshot: Snapshot, issued: int) -> tuple[str, str]:
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
        text = self._keyring.sign_as(TYPE, orjson.dumps(claims))
        return text, hashlib.sha256(text.encode()).hexdigest()[:ETAG_CHARACTERS]
