"""Measures rows side by side with their floors: a run of a row and one of its floor take turns many times over, each a
fraction of a second, so that whatever else the machine does falls on both alike.

A row's ratio is the median of the ratios of the pairs; its other figures are medians over its runs. A floor's figures
come from all the runs that it had beside any row."""

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

FIRST_CALLS, FIRST_SECONDS = 2 * CALLED, 2.0
"""Each account is read once before anything is measured: rows are about the warm path."""
WARM_SECONDS = 0.15
MOST_SECONDS = 60.0
"""For a run that is bounded by its number of operations."""
FEW_PAIRS = 2
"""Of such runs in one visit."""
MIN_P999_SAMPLES = 10_000
"""With fewer the figure would be that of a handful of calls."""
SIGNATURES = 300


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: each row is visited so many `rounds`, each time with so many `pairs` of runs."""

    rounds: int
    pairs: int
    seconds: float
    """Of one run."""


@dataclass
class Result:
    """What the runs of one row came to. CPU is µs of the measured processes for one operation."""

    row: Row
    cpu: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    """Each run's cost as a multiple of what its floor had cost just before."""
    throughput: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    load_share: list[float] = field(default_factory=list)
    """How busy the load generator's core was: near 1 it is the load generator that was measured."""
    resident_bytes: int = 0

    @property
    def void(self) -> bool:
        return self.errors.total() > 0 or not self.cpu

    def quantile(self, share: float) -> float | None:
        """Seconds; None where there are too few samples for it."""
        if not self.latencies or (share > 0.99 and len(self.latencies) < MIN_P999_SAMPLES):
            return None
        return percentile(sorted(self.latencies), share)

    def ratio_to(self, floor: Result) -> float | None:
        """The median of the pairs' ratios; None where a row is void."""
        return None if self.void or floor.void or not self.ratios else statistics.median(self.ratios)


@dataclass(frozen=True, slots=True)
class Subject:
    """A row about to be measured."""

    result: Result
    target: Target
    operations: Sequence[Operation]


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


async def measured(rig: Rig, rows: Sequence[Row], effort: Effort, progress: Callable[[str], None]) -> list[Result]:
    """Measures all rows."""
    subjects: dict[str, Subject] = {}
    async with AsyncExitStack() as stack:
        for row in rows:
            target = rig.targets[row.target]
            operations = await MAKERS[row.operation](target, row.connections, stack)
            subjects[row.name] = Subject(Result(row), target, operations)
            if not row.at_most:
                progress(f"warming: {row.name}")
                first = FIRST_CALLS * row.times_seconds
                outcome = await load.closed(operations, FIRST_SECONDS * row.times_seconds, first)
                subjects[row.name].result.errors += outcome.errors
        floors = {row.floor for row in rows}
        for number in range(effort.rounds):
            for row in rows:
                if row.name in floors and number:
                    continue  # it has enough runs beside its rows
                progress(f"{row.name}, round {number + 1} of {effort.rounds}")
                await visit(rig, subjects[row.name], subjects.get(row.floor), effort)
    rig.wake()
    for subject in subjects.values():
        subject.result.resident_bytes = subject.target.measured.resident_bytes()
        subject.result.errors += Counter({"issued in an outage": subject.target.outage_tokens()})
    return [subject.result for subject in subjects.values()]


async def visit(rig: Rig, subject: Subject, floor: Subject | None, effort: Effort) -> None:
    """Some pairs of runs of one row and its floor."""
    row = subject.result.row
    beside = {row.target} if floor is None else {row.target, floor.result.row.target}
    await rig.only(beside)
    for each in (floor, subject):
        if each is not None and not each.result.row.at_most:
            each.result.errors += (await load.closed(each.operations, WARM_SECONDS)).errors
    seconds = effort.seconds * row.times_seconds
    for _ in range(FEW_PAIRS if row.at_most else effort.pairs):
        base = await run(floor, seconds) if floor is not None else None
        cost = await run(subject, seconds)
        if base and cost:
            subject.result.ratios.append(cost / base)


async def run(subject: Subject, seconds: float) -> float | None:
    """One run: µs of an operation, None where none succeeded."""
    result, at_most = subject.result, subject.result.row.at_most
    await settle()
    cpu, own = subject.target.measured.cpu_seconds(), time.process_time()
    outcome = await load.closed(subject.operations, MOST_SECONDS if at_most else seconds, at_most)
    cpu, own = subject.target.measured.cpu_seconds() - cpu, time.process_time() - own
    result.errors += outcome.errors
    if not outcome.latencies:
        return None
    cost = cpu / len(outcome.latencies) * 1e6
    result.cpu.append(cost)
    result.throughput.append(outcome.throughput)
    result.latencies += outcome.latencies
    result.load_share.append(own / outcome.seconds)
    return cost
