"""The secrets of service accounts: their form, their bcrypt hashes, and the bounded queue that computes these.

A generated secret is `artstore_<10: id>_<43: random><6: checksum>`, all base62: the id names the one hash that may
match, 43 characters hold 256 random bits, and the CRC-32 over all before it lets scanners (and this service) tell a
secret from noise without a look-up. 69 bytes: under bcrypt's 72. This module doesn't know accounts.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import string
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import bcrypt

from artstore_grpc.errors import Overloaded

PREFIX = "artstore_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 10
RANDOM_LENGTH = 43
"""62^43 > 2^256."""
CHECKSUM_LENGTH = 6
"""62^6 > 2^32."""
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
    id, random = (
        "".join(secrets.choice(ALPHABET) for _ in range(length)) for length in (ID_LENGTH, RANDOM_LENGTH)
    )
    body = f"{PREFIX}{id}_{random}"
    return NewSecret(id, body + checksum(body))


def checksum(body: str) -> str:
    """CRC-32 in base62, most significant first: catches typing errors and noise, not attackers."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


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
        made: bytes = await self._run(lambda: bcrypt.hashpw(text.encode(), bcrypt.gensalt(self.cost)))
        return made.decode()

    async def matches(self, text: str, hashed: str) -> bool:
        """Whether the hash is of this text. Raises Overloaded when the queue is full."""
        found: bool = await self._run(lambda: bcrypt.checkpw(text.encode(), hashed.encode()))
        return found

    async def _run(self, work):  # type: ignore[no-untyped-def]
        if self.pending >= self._bound:
            raise Overloaded(reason="HASHING_QUEUE_FULL")
        self.pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self.pending -= 1
            self.computed += 1

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
