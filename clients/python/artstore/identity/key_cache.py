"""When a key set is asked for, how long it is gone by, what is said of a key that is not in it: decisions on times and
a set, no I/O and no threads (key_sets.py has those).

A set is kept as long as its server said, within bounds, and asked for anew before that, while it is used. Where
asking fails it is gone by for STALE_IF_ERROR more (RFC 5861 §4). A `kid` that it lacks is worth one request, and then
none for a while: anybody can invent one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from artstore.identity.refusals import KeySetError, KeysUnavailable, TokenRefused, UnknownKey
from artstore.identity.verification_keys import VerificationKey

MIN_AGE_SECONDS, MAX_AGE_SECONDS = 5.0, 3600.0
"""Bounds of what a server says: `max-age=0` must not mean a request per token, and nobody waits a day for a key."""
DEFAULT_AGE_SECONDS = 300.0
"""For a server that says nothing."""
REFRESH_FROM, REFRESH_TO = 0.7, 0.85
"""The part of its age at which a set is asked for anew; a random one in between, so that a fleet spreads out."""
STALE_IF_ERROR_SECONDS = 1800.0
"""A token's life: by then no token from before the outage is left, and nobody got a newer one."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 30.0
"""The wait after a failure, doubled each time."""
COOL_DOWN_SECONDS = 10.0
"""Between two requests for the sake of unknown `kid`s, whoever's. A key that signs at once, in an emergency, is known
that soon."""
UNKNOWN_SECONDS = 30.0
"""How long a `kid` stays unknown that was just asked for in vain."""
MAX_UNKNOWN = 256


@dataclass(frozen=True, slots=True)
class Look:
    """What to do now: a `key` to go by, or an `error`, or neither: wait for the request that is under way. `fetch`:
    a request must begin, whether anybody waits for it or not."""

    key: VerificationKey | None = None
    error: TokenRefused | None = None
    fetch: bool = False


class KeyCache:
    """A key set and what is known of it. Times are of any one clock, in seconds."""

    def __init__(self, random: Callable[[], float], stale_if_error_seconds: float) -> None:
        self.keys: Mapping[str, VerificationKey] = {}
        self.fetched_at = float("-inf")
        """When the request began that brought the set, or said that it holds."""
        self.error: KeySetError | None = None
        """Why the last request failed; None where it didn't."""
        self.calm_until = float("-inf")
        """Till then a key that is in the set is simply good."""
        self._random = random
        self._stale_seconds = stale_if_error_seconds
        self._fresh_until = self._refresh_at = self._retry_at = self._cool_at = float("-inf")
        self._failures = 0
        self._fetching = False
        self._asked = ""
        self._unknown: dict[str, float] = {}

    def usable(self, now: float, not_before: float) -> bool:
        """Whether the set may be gone by."""
        if self.fetched_at <= not_before:
            return False
        return now < self._fresh_until + (self._stale_seconds if self._failures else 0.0)

    def look(self, kid: str, now: float, not_before: float = float("-inf")) -> Look:
        """What to do about a token of this `kid`; one that is no newer than `not_before` does not count."""
        if not self.usable(now, not_before):
            return self._awaited(now)
        key = self.keys.get(kid)
        if key is not None:
            due = now >= max(self._refresh_at, self._retry_at) and not self._fetching
            return Look(key, fetch=self._begin() if due else False)
        if self._unknown.get(kid, now) > now:
            return Look(error=unknown(kid))
        if self._fetching:
            return Look()
        if self.error is not None:
            return self._awaited(now)  # it may well be a new key: nobody can say
        if now < self._cool_at:
            return Look(error=unknown(kid))
        self._cool_at, self._asked = now + COOL_DOWN_SECONDS, kid
        return Look(fetch=self._begin())

    def _awaited(self, now: float) -> Look:
        if self._fetching:
            return Look()
        if now >= self._retry_at:
            return Look(fetch=self._begin())
        return Look(error=unavailable(self.error))

    def _begin(self) -> bool:
        self._fetching = True
        return True

    def landed(
        self, started: float, now: float, keys: Mapping[str, VerificationKey] | None, max_age: float | None
    ) -> None:
        """A request that began at `started` brought a set, or None: the one that is held still holds."""
        if keys is not None:
            self.keys = dict(keys)
        age = DEFAULT_AGE_SECONDS if max_age is None else min(max(max_age, MIN_AGE_SECONDS), MAX_AGE_SECONDS)
        self.fetched_at, self._fresh_until = started, started + age
        self._refresh_at = started + age * (REFRESH_FROM + (REFRESH_TO - REFRESH_FROM) * self._random())
        self._retry_at, self._failures, self.error = float("-inf"), 0, None
        self._remember_asked(now)
        self._fetching, self.calm_until = False, self._refresh_at

    def failed(self, now: float, error: KeySetError) -> None:
        """A request brought nothing."""
        wait = min(FIRST_RETRY_SECONDS * 2**self._failures, LAST_RETRY_SECONDS)
        self._retry_at, self.error = now + wait * (0.5 + 0.5 * self._random()), error
        self._failures = min(self._failures + 1, 10)
        self._fetching, self._asked = False, ""
        self._cool_at = float("-inf")  # the request told nothing of any kid
        self.calm_until = min(self._retry_at, self._fresh_until + self._stale_seconds)

    def _remember_asked(self, now: float) -> None:
        self._unknown = {kid: until for kid, until in self._unknown.items() if until > now and kid not in self.keys}
        if self._asked and self._asked not in self.keys and len(self._unknown) < MAX_UNKNOWN:
            self._unknown[self._asked] = now + UNKNOWN_SECONDS
        self._asked = ""


def unknown(kid: str) -> UnknownKey:
    return UnknownKey(
        f"No key of the issuer has the kid {kid[:80]!r}: the token is from elsewhere, or its key was revoked."
        " Get a new token; if that one is refused too, compare the verifier's issuer and key source."
    )


def unavailable(error: KeySetError | None) -> KeysUnavailable:
    made = KeysUnavailable(error.message if error else "The key set was not fetched yet.")
    made.__cause__ = error
    return made
