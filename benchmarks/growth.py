"""What a token costs when there is more of everything: accounts, ledger rows, revocations, connections, tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load
from benchmarks.measure import Effort, Result, measured
from benchmarks.operations import MAKERS
from benchmarks.plan import Row
from benchmarks.rig import Say, Variant, rig
from benchmarks.seed import Plan

CALLED = 100
"""Accounts that take turns, evenly spread over all there are: a token's cost, not that of reading an account."""
ACCOUNTS = (100, 1_000, 10_000, 100_000, 1_000_000)
LEDGER_ROWS = (1_000, 10_000, 100_000, 1_000_000)
REVOCATIONS = (0, 1_000, 100_000)
CONNECTIONS = (1, 16, 64, 256, 1_000)
LEDGER_TARGETS = {size: f"{size} ledger rows" for size in LEDGER_ROWS}
REVOCATION_TARGETS = {size: f"{size} live revocations" for size in REVOCATIONS}
EFFORT = Effort(rounds=3, pairs=8, seconds=0.4)
TOKENS = 1_000_000
TOKENS_OVER = 10_000
TOKEN_STEPS = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that there is more and more of. Each size is a row whose floor is the smallest size."""

    what: str
    sizes: tuple[int, ...]
    rows: tuple[Row, ...]


def lines() -> tuple[Line, ...]:
    return (
        line("accounts", ACCOUNTS, {size: f"{size} accounts" for size in ACCOUNTS}),
        line("ledger rows", LEDGER_ROWS, LEDGER_TARGETS),
        line("ledger rows, introspecting", LEDGER_ROWS[::3], LEDGER_TARGETS, operation="introspect"),
        line("live revocations", REVOCATIONS, REVOCATION_TARGETS),
        line("live revocations, introspecting", REVOCATIONS, REVOCATION_TARGETS, operation="introspect"),
        line("connections", CONNECTIONS, dict.fromkeys(CONNECTIONS, f"{ACCOUNTS[0]} accounts"), connected=True),
    )


def line(
    what: str,
    sizes: tuple[int, ...],
    targets: Mapping[int, str],
    *,
    operation: str = "issue",
    connected: bool = False,
) -> Line:
    rows = [
        Row(
            f"{size:,} {what}",
            targets[size],
            operation,
            floor=f"{sizes[0]:,} {what}" if size != sizes[0] else "",
            connections=size if connected else 16,
        )
        for size in sizes
    ]
    return Line(what, sizes, tuple(rows))


def variants() -> dict[str, Variant]:
    """A service for each size of its database."""
    made = {f"{count} accounts": Variant(plan=Plan(count, CALLED)) for count in ACCOUNTS}
    made |= {f"{rows} ledger rows": Variant(plan=Plan(100, CALLED, ledger_rows=rows)) for rows in LEDGER_ROWS}
    made |= {name: Variant(plan=Plan(100, CALLED, revocations=size)) for size, name in REVOCATION_TARGETS.items()}
    return made


async def grown(folder: Path, say: Say, only: str = "") -> dict[str, list[Result]]:
    """The rows of each line, or of those whose name matches a regular expression."""
    chosen = [each for each in lines() if re.search(only, each.what)]
    names = {row.target for each in chosen for row in each.rows}
    made = {name: variant for name, variant in variants().items() if name in names}
    async with rig(folder, set(made), made, say) as started:
        return {each.what: await measured(started, each.rows, EFFORT, say) for each in chosen}


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
            if not outcome.latencies:
                break  # nothing succeeds any more: the errors say so
    return found
