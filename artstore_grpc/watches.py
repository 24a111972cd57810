"""Who follows the trust feed: admitted within bounds, told everything once and in order, ended with their token.

A follower holds no queue: it remembers how far it has read, and the rows are kept once for all of them. One that reads
too slowly falls behind what is kept, and is told to start over: it costs its place and the one message in its hands.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from artstore_grpc.call import Caller
from artstore_grpc.errors import InvalidToken, OutOfRange, Overloaded, Unavailable
from artstore_grpc.pipeline import BUSY_RETRY
from artstore_grpc.replica import Replica
from artstore_grpc.trust import Change

SHARE_OF_ONE_ACCOUNT = 4
"""One account may hold a fourth of all streams: a fleet of one service must not keep the others out."""


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


class Watches:
    """The streams of this process; `max_streams` at once."""

    def __init__(self, replica: Replica, now: Callable[[], datetime], *, max_streams: int) -> None:
        self._replica = replica
        self.trust = replica.trust
        self._now = now
        self._max_streams = max_streams
        self._by_account: Counter[str] = Counter()
        self._ended = False

    @property
    def count(self) -> int:
        return self._by_account.total()

    def end(self) -> None:
        """Ends every stream, now and later: clients go on at another server."""
        self._ended = True
        self.trust.wake()

    async def follow(
        self, caller: Caller, after_sequence: int = 0, after_hash: bytes = b""
    ) -> AsyncGenerator[Beginning | News]:
        """A snapshot, or what has happened since a row, then every change, and News without any once a second while
        this replica is up to date. Raises OutOfRange, Overloaded, Unavailable, and InvalidToken when the caller's token
        has expired or is refused."""
        with self._admitted(caller):
            sequence, generation = after_sequence, self.trust.generation
            if after_sequence:
                await self._require(after_sequence, after_hash)
            else:
                sequence = self.trust.snapshot().sequence
                yield Beginning(generation, sequence)
            beats = -1
            while True:
                moved = self.trust.moved  # before looking, so that nothing is missed
                self._check(caller, generation)
                changes = self.trust.changes_after(sequence)
                if changes or beats != self.trust.beats:
                    beats = self.trust.beats
                    sequence, hash = self.trust.head  # noqa: A001
                    yield News(sequence, hash, changes)
                else:
                    await moved.wait()

    async def _require(self, sequence: int, hash: bytes) -> None:
        """A follower may come from a replica that has read further: before it is sent away this one reads too."""
        if sequence > self.trust.head[0]:
            await self._replica.catch_up()
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

    @contextlib.contextmanager
    def _admitted(self, caller: Caller) -> Iterator[None]:
        account = caller.account.id
        share = max(1, self._max_streams // SHARE_OF_ONE_ACCOUNT)
        if self.count >= self._max_streams or self._by_account[account] >= share:
            raise Overloaded(reason="TOO_MANY_STREAMS", retry_after=BUSY_RETRY)
        self._by_account[account] += 1
        try:
            yield
        finally:
            self._by_account[account] -= 1
            if not self._by_account[account]:
                del self._by_account[account]
