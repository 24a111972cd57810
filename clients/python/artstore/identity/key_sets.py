"""A key set that is kept current: asked for when it is needed first, again before it is too old, once for a `kid` that
it lacks; by one request at a time, however many wait for it, in a thread, so that asyncio and threads share it.

When, and what holds meanwhile, is decided in key_cache.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from datetime import timedelta

from artstore.identity.clocks import steady_seconds
from artstore.identity.key_cache import STALE_IF_ERROR_SECONDS, KeyCache, Look
from artstore.identity.key_sources import KeySource
from artstore.identity.refusals import KeySetError
from artstore.identity.verification_keys import KeyShelf, VerificationKey

LOGGER = logging.getLogger("artstore.identity")
TIMEOUT = timedelta(seconds=5)
STALE_IF_ERROR = timedelta(seconds=STALE_IF_ERROR_SECONDS)
FETCH_FRACTION = 0.9
"""How much of the timeout a request may take: who waits for it learns why there is no key set."""
LOST_AFTER = 3
"""Timeouts after which a request is given up that a name server holds, or that was left behind by a fork."""


class Flight:
    """A request under way; it never fails, since what came of it is in the key set."""

    def __init__(self, started: float, timeout_seconds: float) -> None:
        self.started = started
        self.landing: Future[None] = Future()
        self._timeout_seconds = timeout_seconds

    async def landed(self) -> bool:
        """Waits for it, within the timeout; who is cancelled here cancels nobody else."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_seconds):
                await asyncio.shield(asyncio.wrap_future(self.landing))
        return self.landing.done()

    def wait(self) -> bool:
        """The same without asyncio."""
        with contextlib.suppress(FutureTimeout):
            self.landing.result(self._timeout_seconds)
        return self.landing.done()


@dataclass(frozen=True, slots=True)
class Brought:
    """What a request brought: `keys` is None where the set that is held still holds."""

    keys: Mapping[str, VerificationKey] | None
    max_age: float | None
    etag: str


class KeySet:
    """The keys of one issuer."""

    def __init__(
        self,
        source: KeySource,
        *,
        timeout: timedelta = TIMEOUT,
        stale_if_error: timedelta = STALE_IF_ERROR,
        clock: Callable[[], float] = steady_seconds,
        random: Callable[[], float] = random.random,
    ) -> None:
        """Nothing is asked before the first token. `timeout` is for one request; `stale_if_error` how long a set that
        is too old is gone by while asking fails, zero not at all. `clock` (seconds, of a clock that nobody sets) and
        `random` are for tests. Raises ValueError."""
        if timeout <= timedelta(0) or stale_if_error < timedelta(0):
            raise ValueError("timeout must be positive, and stale_if_error not negative.")
        self.shelf = KeyShelf()
        self.requests = 0
        """How many were made."""
        self.on_change: list[Callable[[Mapping[str, VerificationKey]], None]] = []
        """Told the keys when some have gone."""
        self._source = source
        self._timeout_seconds = timeout.total_seconds()
        self._clock = clock
        self._cache = KeyCache(random, stale_if_error.total_seconds())
        self._etag = ""
        self._lock = threading.Lock()
        self._flight: Flight | None = None

    def current(self, kid: str, not_before: float = float("-inf")) -> VerificationKey | None:
        """A key that is good without any doubt; None where `look` must decide."""
        cache = self._cache
        if self._clock() < cache.calm_until and cache.fetched_at > not_before:
            return cache.keys.get(kid)
        return None

    def look(self, kid: str, not_before: float = float("-inf")) -> VerificationKey | Flight:
        """The key of this `kid`, or a request to wait for before looking again. A set that is no newer than
        `not_before`, by this set's clock, does not count. Raises UnknownKey, KeysUnavailable."""
        with self._lock:
            now = self._clock()
            self._give_up(now)
            found = self._cache.look(kid, now, not_before)
            flight = self._begun(found, now)
        if found.key is not None:
            return found.key
        if found.error is not None:
            raise found.error
        assert flight is not None
        return flight

    def now(self) -> float:
        """By this set's clock."""
        return self._clock()

    @property
    def error(self) -> KeySetError | None:
        """Why the last request failed; None where it didn't."""
        return self._cache.error

    def _begun(self, found: Look, now: float) -> Flight | None:
        if found.fetch:
            flight = self._flight = Flight(now, self._timeout_seconds)
            self.requests += 1
            threading.Thread(target=self._fly, args=(flight,), name="artstore-key-set", daemon=True).start()
        return self._flight

    def _give_up(self, now: float) -> None:
        flight = self._flight
        if flight is not None and now > flight.started + LOST_AFTER * self._timeout_seconds:
            self._flight = None
            self._cache.failed(now, KeySetError("The key set's server did not answer in time.", "UNREACHABLE"))
            flight.landing.set_result(None)

    def _fly(self, flight: Flight) -> None:
        try:
            fetched = self._source.fetch(self._etag, self._timeout_seconds * FETCH_FRACTION)
            keys = None if fetched.document is None else self.shelf.read(fetched.document)
        except KeySetError as error:
            self._land(flight, error)
        except Exception as error:  # a source that somebody else wrote: those who wait are told all the same
            unforeseen = KeySetError(f"The key source failed: {type(error).__name__}.", "UNREACHABLE")
            unforeseen.__cause__ = error
            self._land(flight, unforeseen)
        else:
            self._land(flight, Brought(keys, fetched.max_age, fetched.etag))

    def _land(self, flight: Flight, came: Brought | KeySetError) -> None:
        with self._lock:
            if self._flight is not flight:
                return  # it was given up
            if isinstance(came, Brought):
                self._take(flight.started, came)
            else:
                LOGGER.warning("no key set: %s", came)
                self._cache.failed(self._clock(), came)
            self._flight = None
        flight.landing.set_result(None)

    def _take(self, started: float, came: Brought) -> None:
        before = self._cache.keys
        self._etag = came.etag
        self._cache.landed(started, self._clock(), came.keys, came.max_age)
        if any(self._cache.keys.get(kid) is not key for kid, key in before.items()):
            for tell in self.on_change:
                tell(self._cache.keys)
