"""`make bench-scaling`: what a token costs with 1, 2 and 4 workers, and what each of them takes when nothing is asked.

Workers may have every core, as where they are wanted, and so may the load generator, PostgreSQL and Redis, who take
what they need of the same cores. CPU time for a token is what there is to be known of growth on a machine of two cores;
how many tokens a second come out of it is stated beside it. Where there are more workers than cores the figure tells
how they evict each other's caches. PostgreSQL and Redis count what they are asked, by their own accounts.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis

from artstore_grpc.ephemeral.registration import HEARTBEAT
from benchmarks import load
from benchmarks.operations import MAKERS, settle
from benchmarks.plan import WORKERS_CONNECTIONS
from benchmarks.processes import Measured
from benchmarks.rig import Rig, Say, Target, Variant, rig
from benchmarks.seed import Plan

WORKERS = (1, 2, 4)
CALLED = 40
"""Accounts; few enough that each asks several times a second, as those do who share their limits' counts."""
IDLE_SECONDS, RUN_SECONDS = 10.0, 1.0
SHARED_SECONDS, LONG_SECONDS = 10.0, 15.0
"""Until every account has its share of a limit (artstore_grpc/ephemeral/shares.py); and then what is measured."""
ROUNDS = 12
PLAN = Plan(CALLED, CALLED)
VARIANTS = {
    f"{count} workers": Variant("postgresql", redis=True, workers=count, every_core=True, plan=PLAN)
    for count in WORKERS
}


@dataclass(frozen=True, slots=True)
class Point:
    """A service of so many workers. CPU is that of its processes, the supervisor's included; `idle` figures are those
    of the whole service for a second in which nothing is asked."""

    workers: int
    cores: int
    """Of the machine."""
    cpu_us_per_token: float
    times_first: float
    tokens_per_second: float
    idle_cpu_ms: float
    idle_transactions: float
    transactions_per_second: float
    redis_scripts_per_token: float
    resident_mib: float
    supervisor_mib: float
    errors: int


async def curve(folder: Path, say: Say, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Every point, measured in turns so that what else the machine does falls on all alike."""
    async with rig(folder, set(VARIANTS), VARIANTS, say) as made, AsyncExitStack() as stack:
        operations = {name: await MAKERS["issue"](made.targets[name], WORKERS_CONNECTIONS, stack) for name in VARIANTS}
        for name in VARIANTS:
            await made.only({name})
            await load.closed(operations[name], 4.0)
        cpu: dict[str, list[float]] = {name: [] for name in VARIANTS}
        errors = dict.fromkeys(VARIANTS, 0)
        for number in range(rounds):
            say(f"CPU per token, round {number + 1} of {rounds}")
            for name in VARIANTS:
                await made.only({name})
                await load.closed(operations[name], RUN_SECONDS / 4)
                cost, failed = await costing(made.targets[name], operations[name])
                cpu[name].append(cost)
                errors[name] += failed
        points = []
        for name, variant in VARIANTS.items():
            say(f"{name}: alone on the machine")
            await made.only({name})
            first = next(iter(VARIANTS))
            ratios = [cost / base for cost, base in zip(cpu[name], cpu[first], strict=True)]
            points.append(
                await point(
                    made,
                    name,
                    variant.workers,
                    operations[name],
                    statistics.median(cpu[name]),
                    statistics.median(ratios),
                    errors[name],
                )
            )
        return [asdict(each) for each in points]


async def costing(target: Target, operations: Sequence[load.Operation]) -> tuple[float, int]:
    """µs of CPU for a token in one run, and how many calls failed."""
    await settle()
    before = target.measured.cpu_seconds()
    outcome = await load.closed(operations, RUN_SECONDS)
    spent = target.measured.cpu_seconds() - before
    return spent / len(outcome.latencies) * 1e6, outcome.errors.total()


async def point(
    made: Rig, name: str, workers: int, operations: Sequence[load.Operation], cpu: float, ratio: float, errors: int
) -> Point:
    """What else there is to know: at rest, and for longer."""
    target = made.targets[name]
    await load.closed(operations, 0.5)
    await asyncio.sleep(6)  # until last uses are written
    asked, spent = await transactions(made, name), target.measured.cpu_seconds()
    await asyncio.sleep(IDLE_SECONDS)
    idle_transactions = (await transactions(made, name) - asked) / IDLE_SECONDS
    idle_cpu = (target.measured.cpu_seconds() - spent) / IDLE_SECONDS * 1e3
    await load.closed(operations, SHARED_SECONDS)
    scripts, asked, started = await redis_scripts(made), await transactions(made, name), time.perf_counter()
    long = await load.closed(operations, LONG_SECONDS)
    await asyncio.sleep(5.5)  # a flush of last uses
    seconds = time.perf_counter() - started
    registrations = workers * seconds / HEARTBEAT.total_seconds()
    per_token = max(0.0, await redis_scripts(made) - scripts - registrations) / len(long.latencies)
    per_second = (await transactions(made, name) - asked) / seconds
    supervisor, *_ = target.measured.pids
    supervised = len(target.measured.pids) > 1
    return Point(
        workers=workers,
        cores=os.cpu_count() or 1,
        cpu_us_per_token=cpu,
        times_first=ratio,
        tokens_per_second=long.throughput,
        idle_cpu_ms=idle_cpu,
        idle_transactions=idle_transactions,
        transactions_per_second=per_second,
        redis_scripts_per_token=per_token,
        resident_mib=target.measured.resident_bytes() / 2**20,
        supervisor_mib=Measured((supervisor,)).resident_bytes() / 2**20 if supervised else 0.0,
        errors=errors + long.errors.total(),
    )


async def transactions(made: Rig, name: str) -> int:
    """Transactions that the service's database has ended, its own included: nearly all are of one statement."""
    connection = await asyncpg.connect(made.database_urls[name])
    await asyncio.sleep(1.2)  # PostgreSQL tells its counts a second late at most
    count = await connection.fetchval(
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
    )
    await connection.close()
    return int(count)


async def redis_scripts(made: Rig) -> int:
    """Scripts that Redis was asked to run, by all services that run; what a script itself calls is not counted."""
    client = Redis.from_url(made.redis_url)
    told = (await client.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})
    await client.aclose()
    return int(told["calls"])


def limits() -> str:
    """What the machine keeps the curve from showing."""
    return f"{os.cpu_count()} cores: the load generator, PostgreSQL and Redis take their part of them."
