"""What a verifier that holds the trust feed pays, in this process: memory for revocations, time for each check."""

from __future__ import annotations

import secrets
import statistics
import time
import tracemalloc
from dataclasses import dataclass
from typing import Any

from artstore.identity import TrustState
from artstore.identity.v1 import token_service_pb2 as pb

LIVE = (0, 1_000, 100_000)
CHECKS = 20_000
ROUNDS = 7
CHUNK = 4_000
JTI_BYTES = 16
EXPIRE = 2_000_000_000
SPREAD_SECONDS = 1_800
"""Tokens of half an hour expire in as many different seconds."""


@dataclass(frozen=True, slots=True)
class Held:
    """With so many live revocations: bytes that they take, and nanoseconds that a check takes."""

    revocations: int
    bytes: int
    check_ns: float


def verifier() -> list[Held]:
    """Fills a state of each size as the feed does, then times checks of tokens that are not refused, in turns."""
    filled = [filled_with(count) for count in LIVE]
    rounds = [[timed(state) for state, _ in filled] for _ in range(ROUNDS)]
    medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
    return [Held(count, taken, ns) for count, (_, taken), ns in zip(LIVE, filled, medians, strict=True)]


def filled_with(count: int) -> tuple[TrustState, int]:
    """A state with so many live revocations, and the bytes that they take."""
    jtis = [secrets.token_hex(JTI_BYTES) for _ in range(count)]
    chunks = -(-count // CHUNK) + 1  # the last one is empty
    messages = [snapshot(jtis, number, last=number == chunks - 1) for number in range(chunks)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    state = TrustState()
    for message in messages:
        state.apply(pb.WatchTrustResponse.FromString(message))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert state.revoked_tokens == count
    return state, after - before


def snapshot(jtis: list[str], number: int, *, last: bool) -> bytes:
    part = jtis[number * CHUNK : (number + 1) * CHUNK]
    tokens = [pb.RevokedToken(jti=jti, exp=EXPIRE + at % SPREAD_SECONDS) for at, jti in enumerate(part)]
    told = pb.TrustSnapshot(revoked_tokens=tokens, chunk=number, last=last)
    return pb.WatchTrustResponse(sequence=1, snapshot=told).SerializeToString()


def timed(state: TrustState) -> float:
    """Nanoseconds for one check."""
    claims: list[dict[str, Any]] = [{"sub": "a", "jti": secrets.token_hex(JTI_BYTES), "epoch": 0} for _ in range(1000)]
    started = time.perf_counter_ns()
    for number in range(CHECKS):
        assert not state.refuses(claims[number % 1000])
    return (time.perf_counter_ns() - started) / CHECKS
