"""`python -m benchmarks.cores`: what a second process costs a call that does nothing of ours.

Two of the bare servers of floors.py, with half of the connections each, take turns with one that has all, and with one
that has half; all of them, and the load generator, may run on every core. A call parses, signs once and answers.
Whatever two cost more than one is this machine's and gRPC's, and workers of ours pay it too.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack

from benchmarks import load
from benchmarks.load import Operation
from benchmarks.operations import MAKERS
from benchmarks.plan import WORKERS_CONNECTIONS
from benchmarks.processes import Measured, floor, pin
from benchmarks.rig import Target

ROUNDS = 12
SECONDS = 2.0
"""Of one run."""
WARM_SECONDS = 1.0


async def cost(measured: Measured, operations: Sequence[Operation]) -> float:
    """CPU µs of the servers for one call. Raises RuntimeError when a call failed."""
    before = measured.cpu_seconds()
    outcome = await load.closed(operations, SECONDS)
    if outcome.errors:
        raise RuntimeError(f"calls failed: {dict(outcome.errors)}")
    return (measured.cpu_seconds() - before) / len(outcome.latencies) * 1e6


async def measure(targets: Sequence[Target]) -> None:
    """Prints what came of three servers: one for all connections, and two."""
    async with AsyncExitStack() as stack:
        half = WORKERS_CONNECTIONS // 2
        one, first, second = [
            await MAKERS["floor RS256"](target, count, stack)
            for target, count in zip(targets, (WORKERS_CONNECTIONS, half, half), strict=True)
        ]
        alone, here, there = [target.measured for target in targets]
        both = Measured(here.pids + there.pids)
        for operations in (one, first + second):
            await load.closed(operations, WARM_SECONDS)
        ones, twos, halves = [], [], []
        for _ in range(ROUNDS):
            ones.append(await cost(alone, one))
            twos.append(await cost(both, first + second))
            halves.append(await cost(here, first))
    print(f"one process, {WORKERS_CONNECTIONS} connections: {statistics.median(ones):.0f} µs a call")
    for name, found in ((f"two processes, {half} each", twos), (f"one process, {half}", halves)):
        ratios = sorted(each / base for each, base in zip(found, ones, strict=True))
        print(f"{name}: {statistics.median(ratios):.2f} × ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)


def main() -> None:
    """Starts the servers and measures."""
    print(f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}")
    with ExitStack() as processes:
        targets = []
        for _ in range(3):
            server = processes.enter_context(floor("grpc"))
            pin(server.pid, None)
            targets.append(Target(Measured((server.pid,)), grpc=f"127.0.0.1:{server.line}"))
        asyncio.run(measure(targets))


if __name__ == "__main__":
    main()
