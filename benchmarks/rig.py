"""Everything that is measured, started at once: bare servers, services with one setting varied each, what they need.

All servers share one core, the load generator, PostgreSQL and Redis the other (and one gateway, whose row says so): a
warm token needs neither of the latter two, and a server's cost is read from its own process anyway. While one is
measured the other services are stopped (SIGSTOP): each polls its ledger four times a second, which would cost the
measured one its caches.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Set
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil

from artstore_grpc.ephemeral.shares import PARTS
from artstore_grpc.model import Role
from artstore_grpc.store.schema import upgrade
from artstore_grpc.vault import new_key
from benchmarks import processes
from benchmarks.processes import LOAD_CORE, SERVER_CORE, Measured, pin
from benchmarks.seed import Plan, Seeded, seed
from tests.processes.service import ISSUER, Service
from tests.servers import Postgres, Redis

OUTAGE_TOKENS = "artstore_tokens_issued_total[('mode', 'outage')]"
CALLED = 200
"""Accounts that take turns in a run."""
PAGE_SIZE = 10
PAGES = 1_000
COLD = 24
"""Accounts whose secrets have not earned their tags; each is good for one cold token."""


Say = Callable[[str], None]
"""Told what is being done, for whoever waits."""


@dataclass(frozen=True, slots=True)
class Target:
    """Something that can be called and whose cost is known."""

    measured: Measured
    grpc: str = ""
    http: int = 0
    accounts: tuple[Seeded, ...] = ()
    administrator: Seeded | None = None
    service: Service | None = None

    def outage_tokens(self) -> int:
        """Tokens that the service issued because it took its database for down: it was stopped in the middle of a
        poll, say. What they cost is another thing's cost."""
        return 0 if self.service is None else int(self.service.metrics()[OUTAGE_TOKENS])


@dataclass(frozen=True, slots=True)
class Variant:
    """A service with one factor varied."""

    database: str = "sqlite"
    redis: bool = False
    workers: int = 1
    every_core: bool = False
    """Neither it nor what it needs nor the load generator is kept on one core: two workers that share one evict each
    other's caches with every call, which each on a core of its own they do not, and so does a load generator that may
    not make way for them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    plan: Plan = Plan(CALLED, CALLED)  # noqa: RUF009 - frozen


UNSHARED = 2 * PARTS - 1
"""The highest limit a minute of which no shares are taken: each request is a round trip to Redis."""
LISTED = Plan(PAGES * PAGE_SIZE, CALLED)
"""Enough accounts for a page 1,000."""
SETTLE_SECONDS = 0.4
"""Longer than a poll of the ledger: a service that was stopped in the middle of one takes the database for down."""

VARIANTS: dict[str, Variant] = {
    "sqlite": Variant(plan=LISTED),
    "redis": Variant(redis=True),
    "redis one by one": Variant(redis=True, plan=Plan(CALLED, CALLED, rate_limit=UNSHARED)),
    "postgres": Variant("postgresql", plan=LISTED),
    "postgres redis": Variant("postgresql", redis=True),
    "one worker": Variant(every_core=True, plan=LISTED),
    "two workers": Variant(workers=2, every_core=True, plan=LISTED),
    "eddsa": Variant(environment={"ARTSTORE_SIGNING_ALGORITHM": "EdDSA"}),
    "es256": Variant(environment={"ARTSTORE_SIGNING_ALGORITHM": "ES256"}),
    "cold": Variant(plan=Plan(COLD, COLD, cold_cost=12)),
    "restart": Variant("postgresql", plan=Plan(1_000, 1_000)),
    "cheap sqlite": Variant(environment={"ARTSTORE_BCRYPT_COST": "4"}),
    "cheap postgres": Variant("postgresql", environment={"ARTSTORE_BCRYPT_COST": "4"}),
}


GATEWAYS = {"gateway": SERVER_CORE, "gateway apart": LOAD_CORE}
"""Gateways that run alone, before the service `sqlite`, and where. On one core the two evict each other's caches with
every call, as they would not on two machines; but the load generator's core isn't theirs alone either."""


class Rig:
    """The targets by name."""

    def __init__(self, folder: Path, stack: ExitStack, variants: Mapping[str, Variant], say: Say) -> None:
        self.targets: dict[str, Target] = {}
        self._folder = folder
        self._stack = stack
        self._variants = variants
        self._say = say
        self._postgres: Postgres | None = None
        self._redis: Redis | None = None
        self._databases = 0
        self._stopped: set[int] = set()
        self.database_urls: dict[str, str] = {}

    async def start(self, names: set[str]) -> None:
        """Starts the targets named, and what they need."""
        if "floor" in names:
            spoken = self._stack.enter_context(processes.floor("grpc"))
            self.targets["floor"] = Target(Measured((spoken.pid,)), grpc=f"127.0.0.1:{spoken.line}")
        if "floor http" in names:
            spoken = self._stack.enter_context(processes.floor("http"))
            self.targets["floor http"] = Target(Measured((spoken.pid,)), http=int(spoken.line))
        for name, variant in self._variants.items():
            if name in names or (name == "sqlite" and GATEWAYS.keys() & names):
                self._say(f"starting: {name}")
                self.targets[name] = await self._service(name, variant)
        for name in GATEWAYS.keys() & names:
            self.targets[name] = self._gateway(name, self.targets["sqlite"])

    async def only(self, names: Set[str]) -> None:
        """These targets run; every other service is stopped until its turn."""
        wanted = {pid for name in names for pid in self.targets[name].measured.pids}
        services = {pid for target in self.targets.values() if target.service for pid in target.measured.pids}
        waking = wanted & self._stopped
        for pid in services - wanted - self._stopped:
            os.kill(pid, signal.SIGSTOP)
        for pid in waking:
            os.kill(pid, signal.SIGCONT)
        self._stopped = services - wanted
        self._let_load(all(name in self._variants and self._variants[name].every_core for name in names))
        if waking:
            await asyncio.sleep(SETTLE_SECONDS)

    def _let_load(self, everywhere: bool) -> None:
        """The load generator and the servers that services need have every core, or their own."""
        for process in (each.process for each in (self._postgres, self._redis) if each is not None):
            assert process is not None
            for pid in processes.family(process.pid):
                with suppress(psutil.NoSuchProcess, ProcessLookupError):  # a connection of PostgreSQL's may have ended
                    pin(pid, None if everywhere else LOAD_CORE)
        pin(os.getpid(), None if everywhere else LOAD_CORE)

    def wake(self) -> None:
        """Lets all services go on."""
        for pid in self._stopped:
            os.kill(pid, signal.SIGCONT)
        self._stopped = set()

    async def _service(self, name: str, variant: Variant) -> Target:
        url, key = await self._database(variant.database), new_key()
        self.database_urls[name] = url
        accounts = await seed(url, key, variant.plan)
        (administrator,) = await seed(url, key, Plan(1, 1, Role.ADMIN, name="admin"))
        environment = {
            "ARTSTORE_DATABASE_URL": url,
            "ARTSTORE_KEY_ENCRYPTION_KEY": key,
            "ARTSTORE_ISSUER": ISSUER,
            "ARTSTORE_BCRYPT_COST": "12",
            "ARTSTORE_WORKERS": str(variant.workers),
            **variant.environment,
        }
        if variant.redis:
            environment["ARTSTORE_REDIS_URL"] = self.redis_url
        service = Service(self._folder / name.replace(" ", "-"), environment)
        self._stack.callback(service.kill)
        processes.started(service, every_core=variant.every_core)
        port = int(service.gateway_url.rpartition(":")[2])
        measured = Measured(processes.family(service.pid))
        return Target(measured, service.grpc_address, port, tuple(accounts), administrator, service)

    def _gateway(self, name: str, behind: Target) -> Target:
        assert behind.service is not None
        folder = self._folder / name.replace(" ", "-")
        spoken = self._stack.enter_context(processes.gateway(behind.grpc, behind.service.environment, folder))
        found = re.search(r":(\d+) and", spoken.line)
        assert found, spoken.line
        pin(spoken.pid, GATEWAYS[name])
        return Target(Measured((*behind.measured.pids, spoken.pid)), http=int(found[1]), accounts=behind.accounts)

    async def _database(self, kind: str) -> str:
        self._databases += 1
        if kind == "sqlite":
            url = f"sqlite:///{self._folder / f'{self._databases}.db'}"
        else:
            url = await self._postgres_database(f"bench_{self._databases}")
        await upgrade(url)
        return url

    async def _postgres_database(self, name: str) -> str:
        if self._postgres is None:
            self._postgres = self._stack.enter_context(Postgres())
            assert self._postgres.process is not None
            pin(self._postgres.process.pid, LOAD_CORE)
        connection = await asyncpg.connect(self._postgres.url())
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        return self._postgres.url(name)

    @property
    def redis_url(self) -> str:
        """The Redis that the services share; started when it is first asked for."""
        if self._redis is None:
            self._redis = self._stack.enter_context(Redis())
            assert self._redis.process is not None
            pin(self._redis.process.pid, LOAD_CORE)
        return self._redis.url()


@asynccontextmanager
async def rig(
    folder: Path, names: set[str], variants: Mapping[str, Variant] = VARIANTS, say: Say = lambda what: None
) -> AsyncIterator[Rig]:
    """Everything that is named, started; ended with the context, and the caller has the cores again that it had."""
    had = os.sched_getaffinity(0)
    with ExitStack() as stack:
        made = Rig(folder, stack, variants, say)
        await made.start(names)
        await asyncio.sleep(1)  # the services' own first work: the tail, the flush, the purge
        try:
            yield made
        finally:
            made.wake()
            for thread in psutil.Process().threads():
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.sched_setaffinity(thread.id, had)
