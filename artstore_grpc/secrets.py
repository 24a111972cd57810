"""The secrets of service accounts: their form, their bcrypt hashes, and the bounded queue that computes these.

A generated secret is `artstore_<10: id>_<43: random><6: checksum>`, all base62: the id names the one hash that may
match, 43 characters hold 256 random bits, and the CRC-32 over all before it lets scanners (and this service) tell a
secret from noise without a look-up. 69 bytes: under bcrypt's 72. This module doesn't know accounts.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import string
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import bcrypt

from artstore_grpc.errors import Overloaded

T = TypeVar("T")

RETRY_AFTER = timedelta(seconds=1)
"""A full queue of 32 empties in about 8 s on one thread; by then others have been refused too."""

PREFIX = "artstore_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 10
RANDOM_LENGTH = 43
"""62^43 > 2^256."""
CHECKSUM_LENGTH = 6
"""62^6 > 2^32."""
PAIRS = tuple(high + low for high in ALPHABET for low in ALPHABET)
"""A number below 62² in base62: three look-ups make a checksum, which every authentication needs."""
FORM = re.compile(
    rf"{PREFIX}(?P<id>[0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{RANDOM_LENGTH}}}(?P<checksum>[0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret just made; the only place where its text exists. `repr` hides it."""

    id: str
    text: str

    def __repr__(self) -> str:
        return f"NewSecret(id={self.id!r})"


def generate() -> NewSecret:
    name = "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))
    random = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_LENGTH))
    body = f"{PREFIX}{name}_{random}"
    return NewSecret(name, body + checksum(body))


def checksum(body: str) -> str:
    """CRC-32 in base62, most significant first: catches typing errors and noise, not attackers."""
    number, low = divmod(zlib.crc32(body.encode()), len(PAIRS))
    high, middle = divmod(number, len(PAIRS))
    return PAIRS[high] + PAIRS[middle] + PAIRS[low]


def secret_id(text: str) -> str | None:
    """The id inside a well-formed secret; None for anything that can't be one of ours."""
    match = FORM.fullmatch(text)
    if not match or match["checksum"] != checksum(text[:-CHECKSUM_LENGTH]):
        return None
    return match["id"]


class Hasher:
    """bcrypt off the event loop, on a few threads and with a bounded queue (DESIGN §4).

    A hash at cost 12 takes about 235 ms of one core: inline it would stop the service, unbounded it would drown it.
    """

    def __init__(self, *, cost: int, threads: int, queue: int) -> None:
        self.cost = cost
        self.computed = 0
        """Hashes computed since the start."""
        self.pending = 0
        """Hashes waiting or under way."""
        self._bound = threads + queue
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")

    async def hash(self, text: str) -> str:
        """A new salted hash. Raises Overloaded when the queue is full."""
        return (await self._run(lambda: bcrypt.hashpw(text.encode(), bcrypt.gensalt(self.cost)))).decode()

    async def matches(self, text: str, hashed: str) -> bool:
        """Whether the hash is of this text. Raises Overloaded when the queue is full."""
        return await self._run(lambda: bcrypt.checkpw(text.encode(), hashed.encode()))

    async def _run(self, work: Callable[[], T]) -> T:
        if self.pending >= self._bound:
            raise Overloaded(reason="HASHING_QUEUE_FULL", retry_after=RETRY_AFTER)
        loop = asyncio.get_running_loop()
        self.pending += 1
        future = self._executor.submit(work)
        future.add_done_callback(lambda done: self._finish(loop, ran=not done.cancelled()))
        return await asyncio.wrap_future(future)

    def _finish(self, loop: asyncio.AbstractEventLoop, *, ran: bool) -> None:
        """Frees the place when the thread is done: a caller that gave up still burns its core."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
            loop.call_soon_threadsafe(self._count, ran)

    def _count(self, ran: bool) -> None:
        self.pending -= 1
        self.computed += ran

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
