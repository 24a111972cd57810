"""Measures rows in interleaved runs: a round has one run of each row, so that what the machine does meanwhile falls on
all alike; a row's figures are medians over the rounds, and its ratio is the median of the rounds' ratios."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from benchmarks import load
from benchmarks.floors import signers
from benchmarks.load import Operation, percentile
from benchmarks.operations import MAKERS, settle
from benchmarks.plan import Row
from benchmarks.rig import CALLED, Rig, Target

FIRST_CALLS, FIRST_SECONDS = 2 * CALLED, 30.0
"""Each account is read once, whatever that takes, before anything is measured: rows are about the warm path."""
WARM_SECONDS = 0.2
MIN_P999_SAMPLES = 10_000
"""With fewer the figure would be that of a handful of calls."""
SIGNATURES = 300


@dataclass
class Result:
    """What the runs of one row came to. CPU is µs of the measured processes for one operation."""

    row: Row
    cpu: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    load_share: list[float] = field(default_factory=list)
    """How busy the load generator's core was: near 1 it is the load generator that was measured."""
    resident_bytes: int = 0

    @property
    def void(self) -> bool:
        return bool(self.errors) or not self.cpu

    def quantile(self, share: float) -> float | None:
        """Seconds; None where there are too few samples for it."""
        if not self.latencies or (share > 0.99 and len(self.latencies) < MIN_P999_SAMPLES):
            return None
        return percentile(sorted(self.latencies), share)

    def ratio_to(self, floor: Result) -> float | None:
        """The median of the rounds' ratios; None where a row is void."""
        if self.void or floor.void:
            return None
        return statistics.median(mine / its for mine, its in zip(self.cpu, floor.cpu, strict=True))


def signature_costs(rounds: int) -> dict[str, list[float]]:
    """The raw signatures, µs each by algorithm, on this thread."""
    found: dict[str, list[float]] = {}
    made = signers()
    for _ in range(rounds):
        for name, sign in made.items():
            started = time.thread_time()
            for _ in range(SIGNATURES):
                sign()
            found.setdefault(name, []).append((time.thread_time() - started) / SIGNATURES * 1e6)
    return found


async def measured(
    rig: Rig, rows: Sequence[Row], *, rounds: int, seconds: float, progress: Callable[[str], None]
) -> list[Result]:
    """Measures all rows, `rounds` times each for `seconds`."""
    results = {row.name: Result(row) for row in rows}
    async with AsyncExitStack() as stack:
        operations: dict[str, list[Operation]] = {}
        for row in rows:
            target = rig.targets[row.target]
            operations[row.name] = await MAKERS[row.operation](target, row.connections, stack)
            if not row.at_most:
                progress(f"warming: {row.name}")
                await load.closed(operations[row.name], FIRST_SECONDS, FIRST_CALLS)
        for _ in range(rounds):
            for row in rows:
                progress(row.name)
                await run(results[row.name], await rig.only(row.target), operations[row.name], seconds)
    rig.wake()
    for result in results.values():
        result.resident_bytes = rig.targets[result.row.target].measured.resident_bytes()
    return list(results.values())


async def run(result: Result, target: Target, operations: Sequence[Operation], seconds: float) -> None:
    """One run of one row."""
    if not result.row.at_most:
        result.errors += (await load.closed(operations, WARM_SECONDS)).errors
        await settle()
    cpu, own = target.measured.cpu_seconds(), time.process_time()
    outcome = await load.closed(operations, seconds if not result.row.at_most else 60.0, result.row.at_most)
    cpu, own = target.measured.cpu_seconds() - cpu, time.process_time() - own
    result.errors += outcome.errors
    if outcome.latencies:
        result.cpu.append(cpu / len(outcome.latencies) * 1e6)
        result.throughput.append(outcome.throughput)
        result.latencies += outcome.latencies
        result.load_share.append(own / outcome.seconds)
