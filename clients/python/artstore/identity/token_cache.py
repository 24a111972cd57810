"""The tokens that a source holds, and when it asks for others: the decisions, without clock, network or waiting.

For each (scope, audience) at most one request is under way, however many callers there are. A token is replaced ahead
of its expiry while it still serves; a refresh that fails is tried again later, and the old token serves to the end of
its life. What can't be tried again is remembered briefly, so that ten thousand callers are one request all the same.

Not locked: its owner is one event loop, or holds a lock. `live` and `invalidate` may be
called from anywhere. All times are seconds
of one clock that never goes back and counts while the machine sleeps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc
from artstore.identity.credentials import CredentialsError
from artstore.identity.errors import DeadlineExceeded, IdentityError, RateLimited, Unavailable

REFRESH_FROM, REFRESH_TO = 2 / 3, 0.8
"""Between which parts of a token's life its refresh begins: a random one, so that a fleet spreads out. What is left,
six minutes of thirty at least, is how long the service may be down unnoticed."""
MARGIN_FRACTION, MARGIN_SECONDS = 0.05, 5.0
"""The last part of its life, in which a token isn't given out: the call it is for takes time, and clocks differ."""

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 5.0
"""The wait after a failure that may pass: doubled each time, of which a random half is taken off."""
REFUSED_SECONDS = 10.0
"""How long a refusal is remembered: six requests a minute stay under the ten failures that the service forgives."""
TRUSTED_SECONDS = 1.0
"""A token so new can't be invalidated: a resource server that refuses what was just issued refuses the next one too."""
MAX_ENTRIES = 1000
"""Pairs of scope and audience that are held; about 3 KB each."""


class Wanted(NamedTuple):
    """What a token is for. Empty: what the service gives by default."""

    scope: str = ""
    audience: tuple[str, ...] = ()


def wanted(scope: str = "", audience: str | Iterable[str] = ()) -> Wanted:
    """The same for the same scopes in any order (RFC 6749 §3.3: their order does not matter)."""
    scopes = scope if " " not in scope else " ".join(sorted(set(scope.split())))
    return Wanted(scopes, (audience,) if isinstance(audience, str) else tuple(audience))


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and the times of its life. `repr` hides it."""

    text: str = field(repr=False)
    received_at: float
    refresh_at: float
    expires_at: float


@dataclass(slots=True)
class Entry:
    """What is known of one pair of scope and audience."""

    token: Token | None = None
    flying: bool = False
    """Whether a request is under way."""
    not_before: float = 0.0
    """When the next request may begin."""
    failures: int = 0
    """In a row."""
    error: Exception | None = None
    """What the last request failed with."""
    refused: bool = False
    """Whether that can't be mended by asking again."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a caller is to do. `fetch`: begin a request, whose end the cache must be told. Then `token` is given out;
    without one `error` is raised; without either it waits for the request's end, at most until `until`."""

    token: str = field(default="", repr=False)
    fetch: bool = False
    error: Exception | None = None
    until: float = 0.0


class TokenCache:
    """Tokens by what they are for."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` gives numbers from 0 to 1, which spread load and guard nothing."""
        self._random = random
        self._entries: dict[Wanted, Entry] = {}

    def live(self, wanted: Wanted, now: float) -> str:
        """The token, where nothing else is to be done; else an empty string. Changes nothing."""
        entry = self._entries.get(wanted)
        token = entry.token if entry is not None else None
        return token.text if token is not None and now < token.refresh_at else ""

    def look(self, wanted: Wanted, now: float, deadline: float) -> Look:
        """What a caller that waits until `deadline` is to do."""
        entry = self._entry(wanted, now)
        token = entry.token
        fetch = (token is None or now >= token.refresh_at) and not entry.flying and now >= entry.not_before
        if token is not None and now < token.expires_at:
            entry.flying = entry.flying or fetch
            return Look(token.text, fetch)
        if now >= deadline:
            return Look(error=repeated(entry.error) if entry.error else _late())
        if fetch or entry.flying:
            entry.flying = True
            return Look(fetch=fetch, until=deadline)
        assert entry.error is not None, "only a failure makes a caller wait for another time"
        if entry.refused or entry.not_before >= deadline:
            return Look(error=repeated(entry.error))
        return Look(until=entry.not_before)

    def succeeded(self, wanted: Wanted, started: float, now: float, text: str, expires_in: float) -> None:
        """A request that began at `started` has brought a token that lives for `expires_in` seconds. Its life counts
        from `started`, so that no wall clock has a part in it and it never ends later than the service has it."""
        expires_at = started + expires_in - min(MARGIN_SECONDS, expires_in * MARGIN_FRACTION)
        if not text or now >= expires_at:
            self.failed(wanted, now, _useless())
            return
        entry = self._entry(wanted, now)
        part = REFRESH_FROM + (REFRESH_TO - REFRESH_FROM) * self._random()
        entry.token = Token(text, now, min(started + expires_in * part, expires_at), expires_at)
        entry.flying, entry.failures, entry.not_before = False, 0, started
        entry.error, entry.refused = None, False

    def failed(self, wanted: Wanted, now: float, error: Exception) -> None:
        """A request has failed. RetryInfo's time is kept, and a little more, so that not everybody comes at once."""
        entry = self._entry(wanted, now)
        entry.flying = False
        entry.error = error
        entry.refused = not may_be_retried(error)
        spread = 0.5 + self._random() / 2
        wait = min(FIRST_RETRY_SECONDS * 2 ** min(entry.failures, 16), LAST_RETRY_SECONDS) * spread
        if entry.refused:
            wait = REFUSED_SECONDS
        told = error.retry_after if isinstance(error, IdentityError) else None
        entry.not_before = now + wait + (told.total_seconds() if told else 0.0)
        entry.failures += 1

    def invalidate(self, text: str, now: float) -> bool:
        """Forgets a token that a resource server refused. False where it isn't held any more, or is too new to be to
        blame."""
        for entry in list(self._entries.values()):  # copied: another thread may add to it
            token = entry.token
            if token is not None and token.text == text:
                if now - token.received_at < TRUSTED_SECONDS:
                    return False
                entry.token = None
                return True
        return False

    def _entry(self, wanted: Wanted, now: float) -> Entry:
        entry = self._entries.get(wanted)
        if entry is None:
            if len(self._entries) >= MAX_ENTRIES:
                self._make_room(now)
            entry = self._entries[wanted] = Entry()
        return entry

    def _make_room(self, now: float) -> None:
        """Drops what is over; else the oldest that nobody waits for. A request under way is never dropped."""
        idle = [key for key, entry in self._entries.items() if not entry.flying]
        over = [
            key
            for key in idle
            if ((token := self._entries[key].token) is None or now >= token.expires_at)
            and now >= self._entries[key].not_before
        ]
        for key in over or idle[:1]:
            del self._entries[key]


def may_be_retried(error: Exception) -> bool:
    """Whether asking for a token again can help, and does no harm: nothing is written for a token."""
    return isinstance(error, Unavailable | RateLimited)


def repeated(error: Exception) -> Exception:
    """The same error as another object: raised by many callers, one would collect all their tracebacks."""
    if isinstance(error, IdentityError):
        return type(error)(
            error.code, error.reason, error.message, error.violations, error.retry_after, error.denial_id
        )
    try:
        return copy.copy(error).with_traceback(None)
    except Exception:  # of a user's provider, say: not every exception can be made again from its arguments
        return CredentialsError(f"The credentials could not be had: {type(error).__name__}.")


def _late() -> IdentityError:
    message = "No access token came in time: the identity service is slow, or can't be reached."
    return DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, "TOKEN_TIMEOUT", message)


def _useless() -> IdentityError:
    message = "The identity service answered without a token that is live: its answer came too late, or is wrong."
    return Unavailable(grpc.StatusCode.UNAVAILABLE, "USELESS_ANSWER", message)
