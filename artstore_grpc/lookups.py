"""Reads by key, many at once: whoever asks while a read is under way shares the next one with all others who do.

However many ask, one statement runs at a time: a thousand clients that return after a restart cost a handful of
statements, and strangers' keys never take more than one connection from everybody else. Knows nothing of what is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from artstore_grpc.errors import StoreUnavailable

T = TypeVar("T")

MAX_KEYS = 500
"""In one statement; more wait for the next. SQLite takes 32,766 parameters, asyncpg 32,767."""

GATHER_SECONDS = 0.01
"""Between two statements for those who are patient: a flood of strangers' ids makes a hundred a second at most."""

Read = Callable[[Sequence[str]], Awaitable[Mapping[str, T]]]
"""Reads values by their keys; a key that has none is left out."""


class LookUps(Generic[T]):
    """Reads for many what each asks for. A look-up runs to its end, whoever gives up waiting for it."""

    def __init__(self, read: Read[T]) -> None:
        self._read = read
        self._waiting: dict[str, asyncio.Future[T | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._wanted: set[str] = set()
        self._later: asyncio.TimerHandle | None = None
        self._began = 0.0

    async def find(self, key: str) -> T | None:
        """The value of a key, as it is at the time of the call or later. Raises what the read raises."""
        return await asyncio.shield(self._asked(key))

    async def find_patiently(self, key: str) -> T | None:
        """As `find`, with all who ask within a moment of the last statement: at once where there was none."""
        early = self._began + GATHER_SECONDS - time.monotonic()
        if early > 0:
            await asyncio.sleep(early)
        return await self.find(key)

    def want(self, key: str) -> None:
        """Has a key read soon, for whoever needs it next. Of more than make a statement the last ones are dropped."""
        if not self._wanted:
            self._later = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._ask_for_wanted)
        if len(self._wanted) < MAX_KEYS:
            self._wanted.add(key)

    async def close(self) -> None:
        """Nothing is read any more that nobody waits for; what is being read comes to its end."""
        if self._later is not None:
            self._later.cancel()
        if self._task is not None:
            await asyncio.wait((self._task,))

    def _ask_for_wanted(self) -> None:
        wanted, self._wanted = self._wanted, set()
        for key in wanted:
            self._asked(key)

    def _asked(self, key: str) -> asyncio.Future[T | None]:
        future = self._waiting.get(key)
        if future is None:
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return future

    async def _again(self, keys: Sequence[str]) -> Mapping[str, T]:
        """Reads, a second time where the first fails: a connection that died must not cost all who share the read."""
        try:
            return await self._read(keys)
        except StoreUnavailable:
            return await self._read(keys)

    async def _work(self) -> None:
        while self._waiting:
            self._began = time.monotonic()
            asked = dict(list(self._waiting.items())[:MAX_KEYS])
            for key in asked:
                del self._waiting[key]
            try:
                found = await self._again(list(asked))
            except BaseException as error:
                for future in asked.values():
                    future.set_exception(error)
                    future.exception()  # looked at, in case that everybody has left
                if not isinstance(error, Exception):
                    raise
            else:
                for key, future in asked.items():
                    future.set_result(found.get(key))
