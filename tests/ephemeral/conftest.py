"""Limiters on a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from artstore_grpc.ephemeral.back_off import MemoryBackOff
from artstore_grpc.ephemeral.memory import MemoryLimiter
from artstore_grpc.ephemeral.protocol import BackOff, Limiter
from artstore_grpc.ephemeral.redis import RedisLimiter
from artstore_grpc.ephemeral.redis_back_off import RedisBackOff

PATIENT = timedelta(seconds=10)  # so that a busy machine isn't taken for a dead Redis

Shared = Callable[[type[Any], Any], Any]


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


@pytest_asyncio.fixture
async def shared(request: pytest.FixtureRequest, clock: Clock, prefix: str) -> AsyncIterator[Shared]:
    """Makes what counts in Redis; it fails the test if it fell back to its memory."""
    made: list[RedisLimiter | RedisBackOff] = []

    def make(kind: type[Any], fallback: Any) -> Any:
        url = request.getfixturevalue("redis_server_url")
        made.append(kind(url, fallback=fallback, prefix=prefix, timeout=PATIENT, clock=clock))
        return made[-1]

    yield make
    for each in made:
        await each.close()
        assert each.available


@pytest.fixture(params=["memory", "redis"])
def limiter(request: pytest.FixtureRequest, clock: Clock, shared: Shared) -> Limiter:
    """Each implementation in turn."""
    memory = MemoryLimiter(clock)
    return memory if request.param == "memory" else shared(RedisLimiter, memory)


@pytest.fixture(params=["memory", "redis"])
def back_off(request: pytest.FixtureRequest, clock: Clock, shared: Shared) -> BackOff:
    """Each implementation in turn."""
    memory = MemoryBackOff(clock)
    return memory if request.param == "memory" else shared(RedisBackOff, memory)
