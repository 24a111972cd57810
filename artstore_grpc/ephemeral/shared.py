"""A script in a Redis that all processes share, and when to do without it.

Decides when Redis is asked: within a time, so many calls at once, and after a failure left alone for a while. What
counts meanwhile is for who asks. Plain EVALSHA with one key a call: Valkey, Redis 7 and later, and their clusters run
it alike.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypedDict

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from artstore_grpc.ephemeral.client import CONNECTIONS, client_of, close, drop_idle

TIMEOUT = timedelta(milliseconds=100)
"""A thousand times a round trip: what takes longer is not coming, and callers wait for it."""

COOL_DOWN = timedelta(milliseconds=500)
"""With `TIMEOUT` one call in each of these is late while Redis is silent; and how soon its return is noticed."""


class Lost(Exception):
    """Redis didn't answer; whoever asked counts without it."""


class Options(TypedDict, total=False):
    """How a script is asked; what is left out is as for `SharedScript`."""

    prefix: str
    timeout: timedelta
    cool_down: timedelta
    clock: Callable[[], float] | None
    logger: FilteringBoundLogger | None


class SharedScript:
    """One script, asked for one key at a time.

    server: a URL (`redis:`, `rediss:`, `unix:`) or a client, whose maker closes it and gives it no retries and a socket
    timeout no longer than `timeout`. what: for the log, in the plural. doubt: how long after its return Redis' answers
    are not all there is to know. timeout: for one call, connecting included. clock: seconds since any epoch, which the
    script gets as its last argument in microseconds; only for tests, as replicas can share no clock but the server's.
    """

    def __init__(
        self,
        server: str | Redis | RedisCluster,
        script: str,
        *,
        prefix: str,
        what: str,
        doubt: timedelta,
        timeout: timedelta = TIMEOUT,
        cool_down: timedelta = COOL_DOWN,
        clock: Callable[[], float] | None = None,
        logger: FilteringBoundLogger | None = None,
    ) -> None:
        self.available = True
        """Whether Redis answered when it was last asked."""
        self._owned = isinstance(server, str)
        self._client = client_of(server) if isinstance(server, str) else server
        self._script = self._client.register_script(script)
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._prefix = prefix
        self._what = what
        self._doubt = doubt.total_seconds()
        self._timeout = timeout.total_seconds()
        self._cool_down = cool_down.total_seconds()
        self._clock = clock
        self._next_try = 0.0
        self._doubted_until = 0.0
        self._log: FilteringBoundLogger = logger if logger is not None else structlog.get_logger(__name__)

    @property
    def doubted(self) -> bool:
        """Whether Redis is back so recently that it doesn't know all that was counted without it."""
        return time.monotonic() < self._doubted_until

    def may_ask(self) -> bool:
        """Whether to ask now: after a failure one call in each `cool_down` tries, and the others don't wait for it."""
        if self.available:
            return True
        now = time.monotonic()
        if now < self._next_try:
            return False
        self._next_try = now + self._cool_down
        return True

    async def ask(self, key: str, *arguments: int) -> int:
        """What the script answers. Takes at most `timeout`. Raises Lost."""
        try:
            return await self._ask(key, arguments)
        except (RedisError, OSError) as error:  # the TimeoutError of asyncio is an OSError
            self._next_try = time.monotonic() + self._cool_down
            if self.available:
                self.available = False
                # The type only: a message may hold the URL, and that a password.
                self._log.warning(f"{self._what} fall back to this process", error=type(error).__name__)
            raise Lost from None

    async def close(self) -> None:
        """Closes the connections, unless they are a client's that was given."""
        if self._owned:
            await close(self._client)

    async def _ask(self, key: str, arguments: tuple[int, ...]) -> int:
        now = () if self._clock is None else (round(self._clock() * 1_000_000),)
        async with asyncio.timeout(self._timeout), self._slots:
            if not self.available:
                await drop_idle(self._client)
            answer = int(await self._script([self._prefix + key], [*arguments, *now]))
        if not self.available:
            self.available = True
            self._doubted_until = time.monotonic() + self._doubt
            self._log.info(f"{self._what} are shared again")
        return answer
