"""What a token costs when there is more of everything: accounts, ledger rows, connections, tokens issued."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import load
from benchmarks.load import Operation
from benchmarks.measure import WARM_SECONDS
from benchmarks.operations import MAKERS
from benchmarks.rig import Target, Variant, rig
from benchmarks.seed import Plan

CALLED = 100
"""Accounts that take turns, evenly spread over all there are: a token's cost, not that of reading an account."""
ACCOUNTS = (100, 1_000, 10_000, 100_000, 1_000_000)
LEDGER_ROWS = (1_000, 10_000, 100_000, 1_000_000)
CONNECTIONS = (1, 16, 64, 256, 1_000)
TOKENS = 1_000_000
TOKENS_OVER = 10_000
TOKEN_STEPS = 10

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Point:
    """CPU µs of a token, over the rounds, where there is `size` of something."""

    size: int
    cpu: tuple[float, ...]
    errors: int

    @property
    def median(self) -> float:
        return statistics.median(self.cpu)


Line = tuple[Point, ...]


def times_first(line: Line) -> list[float | None]:
    """Each point's cost as a multiple of the first's, round by round; None where a call failed."""
    first = line[0]
    return [
        None
        if point.errors or first.errors
        else statistics.median(mine / its for mine, its in zip(point.cpu, first.cpu, strict=True))
        for point in line
    ]


def variants() -> dict[str, Variant]:
    """A service for each size of its database."""
    made = {f"{count} accounts": Variant(plan=Plan(count, CALLED)) for count in ACCOUNTS}
    made |= {f"{rows} ledger rows": Variant(plan=Plan(100, CALLED, ledger_rows=rows)) for rows in LEDGER_ROWS}
    return made


async def grown(folder: Path, *, rounds: int, seconds: float, say: Say) -> dict[str, Line]:
    """Every line: all of its sizes side by side, in interleaved runs."""
    made = variants()
    async with rig(folder, set(made), made, say) as started, AsyncExitStack() as stack:
        lines: dict[str, Mapping[int, tuple[Target, Sequence[Operation]]]] = {}
        for what, sizes in (("accounts", ACCOUNTS), ("ledger rows", LEDGER_ROWS)):
            targets = {size: started.targets[f"{size} {what}"] for size in sizes}
            lines[what] = {size: (each, await MAKERS["issue"](each, 16, stack)) for size, each in targets.items()}
        base = started.targets[f"{ACCOUNTS[0]} accounts"]
        lines["connections"] = {size: (base, await MAKERS["issue"](base, size, stack)) for size in CONNECTIONS}
        return {what: await line(sizes, rounds, seconds, partial(say, what)) for what, sizes in lines.items()}


async def line(
    sizes: Mapping[int, tuple[Target, Sequence[Operation]]], rounds: int, seconds: float, say: Callable[[], None]
) -> Line:
    cpu: dict[int, list[float]] = {size: [] for size in sizes}
    errors = dict.fromkeys(sizes, 0)
    for _ in range(rounds):
        say()
        for size, (target, operations) in sizes.items():
            await load.closed(operations, WARM_SECONDS)
            before = target.measured.cpu_seconds()
            outcome = await load.closed(operations, seconds)
            cpu[size].append((target.measured.cpu_seconds() - before) / max(1, len(outcome.latencies)) * 1e6)
            errors[size] += sum(outcome.errors.values())
    return tuple(Point(size, tuple(cpu[size]), errors[size]) for size in sizes)


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes of the one worker after so many tokens; `errors` of all calls."""

    tokens: int
    resident_bytes: int
    errors: int


async def memory(folder: Path, *, tokens: int, say: Say) -> list[Memory]:
    """A million tokens over ten thousand accounts. EdDSA, since a signature's kind keeps nothing in memory and a
    million RSA signatures take twice the time."""
    environment = {"ARTSTORE_SIGNING_ALGORITHM": "EdDSA"}
    made = {"memory": Variant(plan=Plan(TOKENS_OVER, TOKENS_OVER), environment=environment)}
    found: list[Memory] = []
    async with rig(folder, {"memory"}, made, say) as started, AsyncExitStack() as stack:
        target = started.targets["memory"]
        operations = await MAKERS["issue"](target, 64, stack)
        issued = errors = 0
        while issued < tokens:
            outcome = await load.closed(operations, 3600.0, tokens // TOKEN_STEPS)
            issued += len(outcome.latencies)
            errors += sum(outcome.errors.values())
            found.append(Memory(issued, target.measured.resident_bytes(), errors))
            say(f"{issued:,} tokens, {found[-1].resident_bytes / 2**20:.0f} MiB")
    return found
