"""Who follows the trust feed: admitted within bounds, told everything once and in order, ended with their token.

A follower holds no queue: it remembers how far it has read, and the rows are kept once for all of them. One that reads
too slowly falls behind what is kept, and is told to start over: it costs its place and the one message in its hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from artstore_grpc.call import Caller
from artstore_grpc.errors import InvalidToken, OutOfRange, StoreUnavailable, Unavailable
from artstore_grpc.keys import BadToken, Keyring
from artstore_grpc.places import Places
from artstore_grpc.replica import POLL_TIMEOUT, Replica
from artstore_grpc.trust import Change


@dataclass(frozen=True, slots=True)
class Beginning:
    """Says that everything is told anew, by the snapshot of this generation and sequence. Not the snapshot itself: a
    reader that stalls must not hold it in memory."""

    generation: int
    sequence: int


@dataclass(frozen=True, slots=True)
class News:
    """What has changed up to a row of the ledger; without changes it says that nothing has."""

    sequence: int
    hash: bytes
    changes: list[Change]


class Follower:
    """How far behind one stream is. It knows everything while it waits for news; else all that there was at `as_of`,
    since what it was given after that may not have been taken yet."""

    __slots__ = ("as_of", "waits")

    def __init__(self, now: float) -> None:
        self.as_of = now
        self.waits = False


class Watches:
    """The streams of this process; `max_streams` at once."""

    def __init__(
        self,
        replica: Replica,
        keyring: Keyring,
        now: Callable[[], datetime],
        *,
        max_streams: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._followers: set[Follower] = set()
        self._replica = replica
        self._keyring = keyring
        self.trust = replica.trust
        self._now = now
        self._places = Places(max_streams, reason="TOO_MANY_STREAMS")
        self._ended = False

    @property
    def count(self) -> int:
        return self._places.count

    @property
    def lag_seconds(self) -> float:
        """How long ago the follower that is furthest behind had been given all there was; 0 while all have it. From
        any thread."""
        now = self._monotonic()
        return max((now - each.as_of for each in self._followers.copy() if not each.waits), default=0.0)

    def end(self) -> None:
        """Ends every stream, now and later: clients go on at another server."""
        self._ended = True
        self.trust.wake()

    async def follow(
        self, caller: Caller, token: str, after_sequence: int = 0, after_hash: bytes = b""
    ) -> AsyncGenerator[Beginning | News]:
        """What `caller`, who bears `token`, is told: a snapshot, or what has happened since a row, then every change,
        and News without any once a second while this replica is up to date. Raises OutOfRange, Overloaded, Unavailable,
        and InvalidToken when the token has expired or is refused."""
        with self._places.held(caller.account.id), self._followed() as follower:
            sequence, generation = after_sequence, self.trust.generation
            if after_sequence:
                await self._require(after_sequence, after_hash)
            else:
                sequence = self.trust.snapshot().sequence
                yield Beginning(generation, sequence)
            beats, keys = self.trust.beats, -1  # a heartbeat is the replica's next one; the key is looked at at once
            while True:
                moved, looked = self.trust.moved, self._monotonic()  # before looking, so that nothing is missed
                self._check(caller, generation)
                if keys != self._keyring.version:
                    keys = self._keyring.version
                    self._check_key(token)
                upto, changes = self.trust.changes_after(sequence)
                if changes or beats != self.trust.beats:
                    if not changes:
                        beats = self.trust.beats
                    sequence, all_of_it = upto[0], upto == self.trust.head
                    yield News(*upto, changes)
                    follower.as_of = looked if all_of_it else follower.as_of
                else:
                    follower.waits = True
                    await moved.wait()
                    follower.as_of, follower.waits = self._monotonic(), False

    @contextlib.contextmanager
    def _followed(self) -> Iterator[Follower]:
        follower = Follower(self._monotonic())
        self._followers.add(follower)
        try:
            yield follower
        finally:
            self._followers.discard(follower)

    async def _require(self, sequence: int, hash: bytes) -> None:
        """A follower may come from a replica that has read further: before it is sent away this one reads too."""
        if sequence > self.trust.head[0]:
            self._replica.require_database()
            try:
                async with asyncio.timeout(POLL_TIMEOUT.total_seconds()):
                    await self._replica.catch_up()
            except TimeoutError:
                raise StoreUnavailable("the ledger can't be read in time") from None
        self.trust.require(sequence, hash)

    def _check(self, caller: Caller, generation: int) -> None:
        claims = caller.claims
        if self._ended:
            raise Unavailable("This server is stopping; go on at another one.", reason="STOPPING")
        if generation != self.trust.generation:
            raise OutOfRange(reason="LEDGER_REPLACED")
        if claims["exp"] <= self._now().timestamp() or self.trust.refuses(
            claims["sub"], claims["jti"], claims["epoch"]
        ):
            raise InvalidToken(reason="TOKEN_ENDED", cause="the stream's token has expired, or is refused by now")

    def _check_key(self, token: str) -> None:
        """The keys have changed: the one that signed the token may have been revoked."""
        try:
            self._keyring.verify(token)
        except BadToken:
            raise InvalidToken(reason="TOKEN_ENDED", cause="the key of the stream's token was revoked") from None
