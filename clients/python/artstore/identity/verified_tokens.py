"""Tokens that were verified, so that to see one again costs microseconds: bounded, keyed by the token's SHA-256, since
a heap dump or a log of this must show no token.

It only remembers; whether a token that is here is still good (its time, its key, the trust feed) is asked of others
each time (verifier.py). Refusals are not remembered: whoever sends nonsense would fill it and drive out what is good,
a refusal costs no more than a first sight, and a token that is refused now (its key not known yet, a clock that is
being set) must not be refused a moment later for that.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from artstore.identity.caller import VerifiedToken
from artstore.identity.verification_keys import VerificationKey

MAX_TOKENS = 4096
"""About 3 KB each."""


class Entry:
    """A verified token, and what must be looked at each time."""

    __slots__ = ("asked_until", "expires", "key", "verified")

    def __init__(self, verified: VerifiedToken, key: VerificationKey, expires: float, asked_until: float) -> None:
        self.verified = verified
        self.key = key
        self.expires = expires
        """Seconds since 1970, leeway included."""
        self.asked_until = asked_until
        """Till when the service's word for it holds, where it had to be asked; of the verifier's steady clock."""


class VerifiedTokens:
    """The most recently seen of them. From any thread."""

    def __init__(self, most: int = MAX_TOKENS) -> None:
        self._most = most
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: bytes) -> Entry | None:
        entry = self._entries.get(digest)
        if entry is not None:
            try:  # noqa: SIM105  # a context manager, or a lock, is half the cost of all this
                self._entries.move_to_end(digest)
            except KeyError:  # it had to go meanwhile
                pass
        return entry

    def put(self, digest: bytes, entry: Entry) -> None:
        with self._lock:
            self._entries[digest] = entry
            self._entries.move_to_end(digest)
            while len(self._entries) > self._most:
                self._entries.popitem(last=False)

    def drop(self, digest: bytes) -> None:
        with self._lock:
            self._entries.pop(digest, None)

    def keep_only(self, keys: Mapping[str, VerificationKey]) -> None:
        """Forgets tokens of all other keys."""
        with self._lock:
            gone = [digest for digest, entry in self._entries.items() if keys.get(entry.key.kid) is not entry.key]
            for digest in gone:
                del self._entries[digest]
