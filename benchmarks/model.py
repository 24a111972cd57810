"""What a load needs, from what a token costs: the arithmetic of docs/scaling.md.

`python -m benchmarks.model` prints the tables there. Its inputs are what `make bench-scaling` measured, as kept in
benchmarks/scaling.json (`--keep` writes it, and the page); what it says of two and four workers is checked against the
same file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).with_name("scaling.json")
PAGE = Path(__file__).resolve().parents[1] / "docs/scaling.md"
TABLES = re.compile(r"(<!-- measured[^>]*-->\n).*?(<!-- /measured -->)", re.DOTALL)
FLUSH_SECONDS = 5.0
"""How often a process that was used writes last uses: one transaction (artstore_grpc/usage.py)."""
SHARE_SECONDS = 10.0
MAX_SHARE, SHARE_PARTS = 64, 2_000
"""Of shares of limits (artstore_grpc/ephemeral/shares.py): how long one lasts, how large it is."""
UTILISATION = 0.6
"""Of a core: what is left keeps the latency short, and carries the load of a replica that is away."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured. CPU is the service's own; a database's and Redis' are counted in operations."""

    token_us: float
    """CPU of one token, by one process alone."""
    sharing: float
    """How many times that it is with several workers."""
    idle_ms: float
    """CPU of a process in a second in which nothing is asked."""
    idle_transactions: float
    """What a process asks of the database in such a second."""
    process_mib: float
    supervisor_mib: float


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, of so many replicas with so many workers each."""

    tokens_per_second: float
    accounts: int
    """That ask, evenly."""
    rate_limit: int = 100_000
    """Of each, in a minute."""
    changes_per_second: float = 0.0
    """Of accounts, secrets, keys; revocations."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What it takes."""

    cores: float
    workers: int
    mib: float
    database_transactions_per_second: float
    redis_commands_per_second: float


def costs(points: Sequence[Mapping[str, Any]]) -> Costs:
    """From the points of a curve: a process' figures by the first, of one worker; a supervisor's by the others, as far
    as each had a core."""
    first, others = points[0], [point for point in points[1:] if point["workers"] <= point["cores"]]
    return Costs(
        token_us=first["cpu_us_per_token"],
        sharing=max(1.0, *(point["times_first"] for point in others)),
        idle_ms=first["idle_cpu_ms"],
        idle_transactions=first["idle_transactions"],
        process_mib=first["resident_mib"],
        supervisor_mib=others[-1]["supervisor_mib"],
    )


def needs(load: Load, costs: Costs, *, replicas: int = 1, utilisation: float = UTILISATION) -> Needs:
    """What a load takes of all replicas together. Every replica has as many workers as its part needs."""
    spent = load.tokens_per_second * costs.token_us / 1e6
    alone = spent <= utilisation * replicas
    busy = spent if alone else spent * costs.sharing
    workers = max(1, math.ceil(busy / replicas / utilisation))
    processes = workers * replicas
    return Needs(
        cores=busy + processes * costs.idle_ms / 1e3,
        workers=workers,
        mib=processes * costs.process_mib + (0 if alone else replicas * costs.supervisor_mib),
        database_transactions_per_second=processes * (costs.idle_transactions + 1 / FLUSH_SECONDS)
        + load.changes_per_second,
        redis_commands_per_second=redis_scripts_per_token(load, processes) * load.tokens_per_second,
    )


def redis_scripts_per_token(load: Load, processes: int) -> float:
    """One for each share that a process takes of an account's limit; one for each token where limits are low, or an
    account's tokens come seldom."""
    share = min(MAX_SHARE, load.rate_limit // SHARE_PARTS)
    spent = load.tokens_per_second / load.accounts / processes * SHARE_SECONDS
    return 1.0 if share < 2 or spent < 1 else max(1 / share, 1 / spent)


LOADS = (
    Load(1_000, 200),
    Load(10_000, 2_000, changes_per_second=5),
    Load(100_000, 20_000, changes_per_second=50),
)
REPLICAS = (2, 6, 40)


def measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MEASURED.read_text())
    return found


def markdown(found: Mapping[str, Any]) -> str:
    """The tables of docs/scaling.md: what was measured, and what the model makes of it."""
    lines = [
        "| workers | CPU µs per token | × one worker | tokens a second | idle CPU ms/s | "
        "idle database transactions/s | Redis scripts per token | MiB |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {each['workers']} | {each['cpu_us_per_token']:,.0f} | {each['times_first']:.2f} | "
        f"{each['tokens_per_second']:,.0f} | {each['idle_cpu_ms']:.1f} | {each['idle_transactions']:.1f} | "
        f"{each['redis_scripts_per_token']:.3f} | {each['resident_mib']:,.0f} |"
        for each in found["points"]
    ]
    lines += [
        "",
        "| tokens/s | accounts | changes/s | replicas | workers each | cores in all | MiB in all | "
        "database transactions/s | Redis commands/s |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    priced = costs(found["points"])
    for load, replicas in zip(LOADS, REPLICAS, strict=True):
        each = needs(load, priced, replicas=replicas)
        lines.append(
            f"| {load.tokens_per_second:,.0f} | {load.accounts:,} | {load.changes_per_second:g} | {replicas} | "
            f"{each.workers} | {each.cores:.1f} | {each.mib:,.0f} | {each.database_transactions_per_second:,.0f} | "
            f"{each.redis_commands_per_second:,.0f} |"
        )
    return "\n".join(lines) + "\n"


def keep(found: Mapping[str, Any]) -> None:
    """Makes a measurement the one that the page and its test go by."""
    MEASURED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(TABLES.sub(lambda page: page[1] + markdown(found) + page[2], PAGE.read_text()))


if __name__ == "__main__":
    print(markdown(measured()), end="")
