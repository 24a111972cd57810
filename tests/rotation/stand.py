"""Replicas of one installation in this process, on a clock that only tests move; a turn comes when a test says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from artstore_grpc import startup
from artstore_grpc.accounts import Draft
from artstore_grpc.call import Caller
from artstore_grpc.changes import Target
from artstore_grpc.credentials import Credentials
from artstore_grpc.installation import key_encryption
from artstore_grpc.key_policy import LAG
from artstore_grpc.model import Account, Role, RotationMode, RotationPolicy
from artstore_grpc.parts import Parts, parts
from artstore_grpc.records import EventKind, LedgerRow
from artstore_grpc.replays import Answer
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.telemetry.logs import configured
from tests.installation import Log
from tests.keys.stand import ISSUER, FakeTime, operator
from tests.keys.stand import Installation as Keys
from tests.rotation.shelf import Shelf

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TOKEN_LIFETIME = timedelta(minutes=10)
MONDAYS = "0 3 * * 1"
ROTATED = ["secret.rotated", "secret.delivered"]
ROTATION_KINDS = tuple(
    kind.value
    for kind in (
        EventKind.SECRET_ROTATED,
        EventKind.SECRET_DELIVERED,
        EventKind.SECRET_DELIVERY_ABANDONED,
        EventKind.SECRET_RETIRED,
        EventKind.SECRET_EXPIRING,
        EventKind.ACCOUNT_EXPIRED,
        EventKind.ACCOUNT_PURGED,
    )
)


def managed(**changes: Any) -> RotationPolicy:
    given = {"mode": RotationMode.MANAGED, "schedule": MONDAYS, "overlap": DAY, "sink": "shelf"} | changes
    return RotationPolicy(**given)


def by_client(**changes: Any) -> RotationPolicy:
    return RotationPolicy(**({"mode": RotationMode.SELF, "schedule": MONDAYS, "overlap": DAY} | changes))


@dataclass
class Replica:
    """One process: its parts and its log."""

    parts: Parts
    log: Log

    async def turn(self) -> None:
        """One turn of the jobs that matter here."""
        await self.parts.replica.poll()
        await self.parts.usage.flush()
        await self.parts.scheduled_rotation.turn()

    async def authenticate(self, client_id: str, secret: str, source: str = "10.0.0.1") -> Caller:
        """As a client of this replica does for a token. Raises InvalidClient."""
        return await self.parts.pipeline._authenticator.client(Credentials(client_id, secret), source)


@dataclass
class Stand:
    """An installation with replicas that share the store, the clock and a sink named `shelf`."""

    replicas: list[Replica]
    time: FakeTime
    shelf: Shelf
    keys: Keys
    made: dict[str, str] = field(default_factory=dict)
    """The first secret of each account, by its id."""

    @property
    def one(self) -> Replica:
        return self.replicas[0]

    @property
    def parts(self) -> Parts:
        return self.one.parts

    async def account(self, policy: RotationPolicy, name: str = "", **fields: Any) -> Account:
        draft = Draft(name or f"account {len(self.made)}", Role.USER, rotation_policy=policy, **fields)
        answer = await self.parts.accounts.create(draft, None)
        self.made[answer.account.id] = answer.client_secret
        return answer.account

    async def get(self, account: Account) -> Account:
        return await self.parts.accounts.get(account.id)

    async def update(self, account: Account, **changes: Any) -> Account:
        return await self.parts.accounts.update(Target(account.id), changes, operator())

    async def rotate(self, account: Account, caller: Caller | None = None, **options: Any) -> Answer:
        rotation = self.parts.rotation
        return await rotation.rotate_secret(Target(account.id), caller or operator(), options.get("overlap"))

    async def turn(self) -> None:
        for replica in self.replicas:
            await replica.turn()

    async def move(self, time: datetime) -> None:
        """On to a time, in a replica that goes on tailing the ledger."""
        self.time.time = time
        for replica in self.replicas:
            await replica.parts.replica.poll()

    async def turns(self, until: datetime, step: timedelta = HOUR) -> None:
        """A turn of every replica at each step of the way, and at its end."""
        while self.time() < until:
            self.time.time = min(self.time() + step, until)
            await self.turn()

    async def rows(self, account: Account) -> list[LedgerRow]:
        """What the ledger says that an account did by itself, in order."""
        rows = await self.parts.store.ledger(0, 100_000)
        return [row for row in rows if row.kind in ROTATION_KINDS and row.subject == account.id]

    async def kinds(self, account: Account) -> list[str]:
        return [row.kind for row in await self.rows(account)]

    async def to(self, time: datetime | None) -> None:
        """A turn of every replica at a time, and where a new secret was made another one when it is delivered."""
        assert time is not None
        assert time >= self.time()
        self.time.time = time
        await self.turn()
        if await self.parts.store.due_accounts(time + LAG, 1) and await self.parts.store.deliveries_pending():
            self.time.time = time + LAG
            await self.turn()

    def on_shelf(self, account: Account) -> str:
        """The secret that its clients find."""
        return self.shelf.held[account.client_id].client_secret

    def steps_logged(self, action: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.logged().splitlines()]
        return [line for line in lines if line["event"] == "rotation step" and line["action"] == action]

    def logged(self) -> str:
        return "".join(replica.log.getvalue() for replica in self.replicas)


@asynccontextmanager
async def stand(url: str, count: int = 1, like: Stand | None = None, **settings: Any) -> AsyncIterator[Stand]:
    """Replicas that have read what they need; `like`: of an installation that there was before."""
    keys, shelf = (like.keys, like.shelf) if like else (Keys(url), Shelf())
    chosen = keys.settings(token_lifetime=TOKEN_LIFETIME, **settings)
    async with AsyncExitStack() as stack:
        made = Stand([], keys.time, shelf, keys, like.made if like else {})
        for _ in range(count):
            log = Log()
            opened = await stack.enter_async_context(
                parts(
                    chosen,
                    key_encryption(chosen),
                    ISSUER,
                    configured("info", log),
                    keys.time,
                    keys.time.monotonic,
                    sinks=Sinks({"shelf": shelf}),
                )
            )
            await startup.load(chosen, opened, configured("error", Log()))
            made.replicas.append(Replica(opened, log))
        yield made
