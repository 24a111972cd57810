"""The secrets of service accounts: their form, their bcrypt hashes, and the bounded queue that computes these.

A generated secret is `artstore_<10: id>_<43: random><6: checksum>`, all base62: the id names the one hash that may
match, 43 characters hold 256 random bits, and the CRC-32 over all before it lets scanners (and this service) tell a
secret from noise without a look-up. 69 bytes: under bcrypt's 72. A text of any other form may be an imported secret's,
of which another system made the hash (ADR 0014). This module doesn't know accounts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import secrets
import string
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import bcrypt

from artstore_grpc import spans
from artstore_grpc.counters import HASH_BUCKETS, Distribution
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


HASH = re.compile(
    r"\$2[aby]\$(?P<cost>0[4-9]|1[0-6])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{30}[.CGKOSWaeimquy26]", re.ASCII
)
"""A bcrypt hash that some secret may match: the last characters of the salt and of the digest have bits to spare, which
no implementation sets. `$2x$` marks the hashes of a bug that made secrets easier to guess."""
IMPORTED_PREFIX = "imported-"
IMPORTED_DIGEST_BYTES = 10
HASHED_BYTES = 72
"""What bcrypt looks at. Other systems cut longer secrets off; the library here refuses them."""
FREE_FORM_SHARE = 2
"""Texts of free form, which a stranger can make bcrypt run for, may take 1/2 of the queue,"""
SOURCE_SHARE = 4
"""and those from one source 1/4 of that."""


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


def imported_id(hashed: str, client_id: str) -> str:
    """The id of an imported secret: which hash it came with, without telling anything of that, and whose it is."""
    digest = hashlib.sha256(f"{hashed}|{client_id}".encode()).hexdigest()
    return IMPORTED_PREFIX + digest[: 2 * IMPORTED_DIGEST_BYTES]


def hash_cost(hashed: str) -> int | None:
    """The cost of a bcrypt hash; None for what is none."""
    match = HASH.fullmatch(hashed)
    return int(match["cost"]) if match else None


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether a text of free form is the secret of an imported hash, and the hash that shall replace a cheaper one."""

    matches: bool
    upgraded: str = ""


def proved(text: str, hashed: str, *, cost: int, work: int) -> Proof:
    """A failure takes 2^`work` rounds, whatever the hash's own cost, and without a hash too: 2^c for the hash, then
    2^c + 2^(c+1) + … + 2^(work-1). A success is told apart by its answer, so it needs no such care: a hash that is
    cheaper than `cost` is made anew instead."""
    secret = text.encode()[:HASHED_BYTES]
    cheapest = hash_cost(hashed)
    if cheapest is None:
        bcrypt.hashpw(secret, bcrypt.gensalt(work))
        return Proof(matches=False)
    if bcrypt.checkpw(secret, hashed.encode()):
        return Proof(True, bcrypt.hashpw(secret, bcrypt.gensalt(cost)).decode() if cheapest < cost else "")
    for each in range(cheapest, work):
        bcrypt.hashpw(secret, bcrypt.gensalt(each))
    return Proof(matches=False)


def timed(work: Callable[[], T], taken: list[float]) -> T:
    """Does the work, and notes how many seconds it took, whatever comes of it."""
    started = time.perf_counter()
    try:
        return work()
    finally:
        taken.append(time.perf_counter() - started)


class Hasher:
    """bcrypt off the event loop, on a few threads and with a bounded queue.

    A hash at cost 12 takes about 235 ms of one core: inline it would stop the service, unbounded it would drown it.
    """

    def __init__(self, *, cost: int, threads: int, queue: int) -> None:
        self.cost = cost
        self.pending = 0
        """Hashes waiting or under way."""
        self.durations = Distribution(HASH_BUCKETS)
        """Seconds that each hash took in its thread."""
        self.rejected = 0
        """Hashes refused since the start."""
        self._threads = threads
        self._bound = threads + queue
        self._free_form: Counter[str] = Counter()
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")

    async def hash(self, text: str) -> str:
        """A new salted hash. Raises Overloaded when the queue is full."""
        return (await self._run(lambda: bcrypt.hashpw(text.encode(), bcrypt.gensalt(self.cost)))).decode()

    async def matches(self, text: str, hashed: str) -> bool:
        """Whether the hash is of this text. Raises Overloaded when the queue is full."""
        return await self._run(lambda: bcrypt.checkpw(text.encode(), hashed.encode()))

    async def proof(self, text: str, hashed: str, *, work: int, source: str) -> Proof:
        """Whether an imported hash is of this text; an empty hash is of none, and takes as long. Raises Overloaded when
        the queue is full, or too full of such texts: they must not shut out who has a secret of ours."""
        share = max(1, self._bound // FREE_FORM_SHARE)
        of_source = max(self._threads, share // SOURCE_SHARE)  # who is alone may use every thread
        if self._free_form.total() >= share or self._free_form[source] >= of_source:
            raise self._full()
        return await self._run(lambda: proved(text, hashed, cost=self.cost, work=work), source)

    async def _run(self, work: Callable[[], T], free_form: str = "") -> T:
        if self.pending >= self._bound:
            raise self._full()
        loop = asyncio.get_running_loop()
        self.pending += 1
        if free_form:
            self._free_form[free_form] += 1
        taken: list[float] = []  # of a hash that was cancelled before it began nothing
        taken_up = spans.queued("bcrypt wait")

        def hashed() -> T:
            taken_up()
            with spans.span("bcrypt hash"):
                return timed(work, taken)

        future = self._executor.submit(copy_context().run, hashed)  # a thread doesn't know what is recorded
        future.add_done_callback(lambda _: self._finish(loop, free_form, taken))
        return await asyncio.wrap_future(future)

    def _full(self) -> Overloaded:
        self.rejected += 1
        return Overloaded(reason="HASHING_QUEUE_FULL", retry_after=RETRY_AFTER)

    def _finish(self, loop: asyncio.AbstractEventLoop, free_form: str, taken: list[float]) -> None:
        """Frees the place when the thread is done: a caller that gave up still burns its core."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody counts any more
            loop.call_soon_threadsafe(self._count, taken, free_form)

    def _count(self, taken: list[float], free_form: str) -> None:
        self.pending -= 1
        for seconds in taken:
            self.durations.observe(seconds)
        if free_form:
            self._free_form -= Counter((free_form,))  # drops those that are at zero

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
