"""`make bench-trust`: how soon a revocation, a suspension and a change of keys are known everywhere.

200 trials of each on PostgreSQL, with two and four processes, with Redis and without; and at a verifier that follows
the feed, before and after its server is killed, and 20 of the moment of that. The gate is the 95th percentile.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
from rich.console import Console
from rich.table import Table

from artstore_grpc.store.schema import upgrade
from tests.processes.service import install, replicas
from tests.processes.trials import Figures, failover, trials, verifier_trials
from tests.servers import Postgres, Redis

TRIALS = 200
FAILOVERS = 20
WITH_REDIS, WITHOUT_REDIS, VERIFIER = 0.1, 1.0, 1.0

Row = tuple[str, Figures, float]


def measured(postgres: Postgres, redis: Redis) -> Iterator[Row]:
    """Each row as it is known: what, the seconds, and the bound of their 95th percentile."""
    for count in (2, 4):
        for shared in (False, True):
            installation = install(asyncio.run(fresh(postgres)))
            environment = installation.environment | {"ARTSTORE_SIGNING_ALGORITHM": "ES256"}
            environment |= {"ARTSTORE_REDIS_URL": redis.url()} if shared else {}
            with tempfile.TemporaryDirectory() as folder, replicas(Path(folder), environment, count) as services:
                found = asyncio.run(trials(services, installation, TRIALS))
            for name, figures in found.items():
                where = f"{count} processes, {'Redis' if shared else 'no Redis'}"
                yield f"{name}, {where}", figures, WITH_REDIS if shared else WITHOUT_REDIS
    installation = install(asyncio.run(fresh(postgres)))
    with tempfile.TemporaryDirectory() as folder, replicas(Path(folder), installation.environment, 2) as services:
        first, second, _ = asyncio.run(verifier_trials(services, installation, TRIALS))
    yield "revoke, at a verifier", first, VERIFIER
    yield "revoke, at a verifier, its server killed", second, VERIFIER
    lost = []
    for _ in range(FAILOVERS):
        with tempfile.TemporaryDirectory() as folder, replicas(Path(folder), installation.environment, 2) as services:
            lost.append(asyncio.run(failover(services, installation)))
    yield "revoke, just after its server was killed", Figures(lost), VERIFIER


async def fresh(postgres: Postgres) -> str:
    """The URL of a new, migrated database."""
    name = f"trust_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(postgres.url())
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    await upgrade(postgres.url(name))
    return postgres.url(name)


def main() -> None:
    console = Console(width=120)
    table = Table("known everywhere", "p50 ms", "p95 ms", "p99 ms", "most ms", "must p95 ms")
    missed = False
    with Postgres() as postgres, Redis() as redis, console.status("starting") as status:
        for name, figures, bound in measured(postgres, redis):
            status.update(name)
            times = [figures.percentile(percent) for percent in (50, 95, 99)] + [max(figures.seconds)]
            table.add_row(name, *(f"{1000 * seconds:.1f}" for seconds in times), f"{1000 * bound:.0f}")
            missed |= figures.percentile(95) > bound
    console.print(table)
    sys.exit(missed)


if __name__ == "__main__":
    main()
