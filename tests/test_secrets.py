"""Secrets: their form, and the bounded queue that hashes them."""

from __future__ import annotations

import asyncio
import math
import re
import threading

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc import secrets
from artstore_grpc.errors import Overloaded


def test_a_generated_secret_has_the_promised_form() -> None:
    """It has the prefix, an id, at least 256 random bits, a checksum, only URL-safe characters, at most 72 bytes."""
    made = secrets.generate()
    assert made.text.startswith("artstore_")
    assert secrets.secret_id(made.text) == made.id
    assert secrets.RANDOM_LENGTH * math.log2(len(secrets.ALPHABET)) >= 256
    assert re.fullmatch(r"[A-Za-z0-9_]+", made.text)
    assert len(made.text.encode()) <= 72


def test_secrets_differ() -> None:
    """A thousand secrets are a thousand different ones, ids too."""
    made = [secrets.generate() for _ in range(1000)]
    assert len({s.text for s in made}) == len({s.id for s in made}) == 1000


@given(at=st.integers(0, 68), letter=st.sampled_from(secrets.ALPHABET))
def test_one_changed_character_is_noticed(at: int, letter: str) -> None:
    """A secret with one wrong character is refused by its form or its checksum."""
    text = secrets.generate().text
    changed = text[:at] + letter + text[at + 1 :]
    assert (secrets.secret_id(changed) is None) == (changed != text)


@given(st.text(max_size=200))
def test_noise_is_no_secret(noise: str) -> None:
    """Text that isn't ours has no secret id, and never raises."""
    assert secrets.secret_id(noise) is None


def test_repr_hides_the_secret() -> None:
    """A secret does not get into a log through its repr."""
    made = secrets.generate()
    assert made.text not in repr(made)


async def test_a_hash_matches_only_its_text() -> None:
    """bcrypt, at the cost asked for, off the loop."""
    hasher = secrets.Hasher(cost=4, threads=1, queue=4)
    hashed = await hasher.hash("right")
    assert hashed.startswith("$2b$04$")
    assert await hasher.matches("right", hashed)
    assert not await hasher.matches("wrong", hashed)
    hasher.close()


async def test_a_full_queue_sheds() -> None:
    """Past threads + queue hashes at once the next is refused at once, and the others are all computed."""
    hasher, free = secrets.Hasher(cost=4, threads=1, queue=3), threading.Event()
    hasher._executor.submit(free.wait)  # until all have come
    waiting = [asyncio.create_task(hasher.hash("x")) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hasher.hash("x")
    free.set()
    assert len(await asyncio.gather(*waiting)) == 4
    await asyncio.sleep(0)
    assert (hasher.pending, hasher.durations.count) == (0, 4)
    hasher.close()


async def test_a_caller_that_gives_up_frees_no_place_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled wait still burns its thread, so its place is free only when the thread is done."""
    began, ends = threading.Event(), threading.Event()

    def slowly(password: bytes, salt: bytes) -> bytes:
        began.set()
        ends.wait(10)
        return salt

    monkeypatch.setattr(bcrypt, "hashpw", slowly)
    hasher = secrets.Hasher(cost=4, threads=1, queue=1)
    running = asyncio.create_task(hasher.hash("x"))
    assert await asyncio.to_thread(began.wait, 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert hasher.pending == 1
    ends.set()
    while hasher.pending:  # noqa: ASYNC110 - a thread ends it
        await asyncio.sleep(0.005)
    hasher.close()
