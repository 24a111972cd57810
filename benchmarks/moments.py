"""What a closed loop can't show: latency at half the peak load, and the first seconds after every replica restarted."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks import calls, load, operations, processes
from benchmarks.calls import CALL_SECONDS
from benchmarks.load import percentile
from benchmarks.rig import Target
from benchmarks.seed import Seeded

CONNECTIONS = 64
PEAK_SECONDS = 1.0
CLIENTS = 1_000


@dataclass(frozen=True, slots=True)
class Paced:
    """Latencies at a steady rate, in seconds; medians over the runs. None of it counts when a call failed."""

    rate: float
    p50: float
    p99: float
    errors: int

    @property
    def spread(self) -> float | None:
        """p99 ÷ p50; None when a call failed."""
        return None if self.errors else self.p99 / self.p50


async def half_peak(target: Target, operation: str, *, rounds: int, seconds: float) -> Paced:
    """Finds the peak with a closed loop, then asks for half of it, whether or not earlier calls have ended."""
    async with AsyncExitStack() as stack:
        made = await operations.MAKERS[operation](target, CONNECTIONS, stack)
        before = [await load.closed(made, PEAK_SECONDS / 4), await load.closed(made, PEAK_SECONDS)]
        rate = before[-1].throughput / 2
        runs = [await load.paced(made, seconds, rate) for _ in range(rounds)]
    errors = sum(each.errors.total() for each in (*before, *runs))
    if errors:
        return Paced(rate, 0.0, 0.0, errors)
    latencies = [sorted(run.latencies) for run in runs]
    return Paced(
        rate,
        statistics.median(percentile(each, 0.5) for each in latencies),
        statistics.median(percentile(each, 0.99) for each in latencies),
        errors,
    )


@dataclass(frozen=True, slots=True)
class Restart:
    """How long until the last of so many clients had its first token, and how many bcrypt hashes that took."""

    seconds: float
    hashes: int
    errors: int


async def restarted(target: Target) -> Restart:
    """Ends the service as a crash would, starts it again, and has 1,000 clients ask at once, each by a connection and
    an account of its own. The clock starts when the service says that it is ready."""
    assert target.service is not None
    accounts: Sequence[Seeded] = target.accounts[:CLIENTS]
    target.service.kill()
    processes.started(target.service)
    channels = calls.channels(target.service.grpc_address, len(accounts))
    made = [calls.issue(channel, calls.issuing([who])) for channel, who in zip(channels, accounts, strict=True)]
    started = time.perf_counter()
    outcome = await load.closed(made, CALL_SECONDS, len(made))
    seconds = time.perf_counter() - started
    for channel in channels:
        await channel.close()
    hashes = int(target.service.metrics()["artstore_bcrypt_duration_seconds_count"])
    return Restart(seconds, hashes, sum(outcome.errors.values()) + len(accounts) - len(outcome.latencies))
