"""Limiters on a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest
import pytest_asyncio

from artstore_grpc.ephemeral.back_off import MemoryBackOff
from artstore_grpc.ephemeral.memory import MemoryLimiter
from artstore_grpc.ephemeral.protocol import BackOff, Limiter
from artstore_grpc.ephemeral.redis import RedisLimiter
from artstore_grpc.ephemeral.redis_back_off import RedisBackOff

PATIENT = timedelta(seconds=10)  # so that a busy machine isn't taken for a dead Redis


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1_000_000.25

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def prefix() -> str:
    """Where this test's keys are, in a Redis that others use too."""
    return f"{uuid4().hex}:"


@pytest_asyncio.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, clock: Clock, prefix: str) -> AsyncIterator[Limiter]:
    """Each implementation in turn; a Redis one that fell back to its memory fails the test."""
    if request.param == "memory":
        yield MemoryLimiter(clock)
        return
    url = request.getfixturevalue("redis_server_url")
    limiter = RedisLimiter(url, fallback=MemoryLimiter(clock), prefix=prefix, timeout=PATIENT, clock=clock)
    yield limiter
    await limiter.close()
    assert limiter.available


@pytest_asyncio.fixture(params=["memory", "redis"])
async def back_off(request: pytest.FixtureRequest, clock: Clock, prefix: str) -> AsyncIterator[BackOff]:
    """As `limiter`."""
    if request.param == "memory":
        yield MemoryBackOff(clock)
        return
    url = request.getfixturevalue("redis_server_url")
    made = RedisBackOff(url, fallback=MemoryBackOff(clock), prefix=prefix, timeout=PATIENT, clock=clock)
    yield made
    await made.close()
    assert made.available
