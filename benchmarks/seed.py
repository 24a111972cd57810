"""Fills a migrated database with accounts and the ledger rows that go with them, in bulk.

A thousand times faster than the API, and as true: the chain verifies, the tags are those that first successes would
have earned. Accounts that no run calls share one bcrypt hash at cost 4, since nothing will ever check it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import bcrypt
from sqlalchemy import insert, update

from artstore_grpc import ledger, root_key, secrets
from artstore_grpc.key_encryption import LocalKey
from artstore_grpc.model import MAX_RATE_LIMIT, Account, Revocation, Role, Secret
from artstore_grpc.records import SYSTEM, Event, EventKind, LedgerRow
from artstore_grpc.store import rows, tables
from artstore_grpc.store.engine import Database
from artstore_grpc.store.queries import HEAD
from artstore_grpc.store.sql import CONNECT_TIMEOUT, SqlStore
from artstore_grpc.vault import Vault

BATCH = 5_000
CHEAP_COST = 4
SECRET_LIFETIME = timedelta(days=90)
COMMAND_TIMEOUT = timedelta(minutes=2)

Progress = Callable[[int], None]
"""Told how many rows were written since it was last told."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """An account that a run may call."""

    id: str
    client_id: str
    secret: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write: `count` accounts, of which `called` get a secret of their own, evenly spread; ledger rows about
    nobody, to `ledger_rows` in all; live `revocations` of nobody's tokens. With `cold_cost` the called accounts'
    secrets have a bcrypt hash of that cost and no tag."""

    count: int
    called: int
    role: Role = Role.USER
    rate_limit: int = MAX_RATE_LIMIT
    ledger_rows: int = 0
    cold_cost: int = 0
    revocations: int = 0
    name: str = "seed"


async def seed(url: str, key_encryption_key: str, plan: Plan, progress: Progress = lambda rows: None) -> list[Seeded]:
    """Writes what is planned, and returns the accounts that may be called."""
    database = Database(url, pool_size=1, connect_timeout=CONNECT_TIMEOUT, command_timeout=COMMAND_TIMEOUT)
    try:
        return await Seeder(database, await opened_vault(url, key_encryption_key), plan, progress).run()
    finally:
        await database.close()


async def opened_vault(url: str, key_encryption_key: str) -> Vault:
    """The vault that the service will open: its root key is made here, if there is none."""
    store = SqlStore(url, pool_size=1)
    try:
        return Vault(await root_key.opened(store, LocalKey(key_encryption_key), lambda: datetime.now(UTC)))
    finally:
        await store.close()


class Seeder:
    """One filling of one database."""

    def __init__(self, database: Database, vault: Vault, plan: Plan, progress: Progress) -> None:
        self._database = database
        self._vault = vault
        self._plan = plan
        self._progress = progress
        self._begun = datetime.now(UTC) - timedelta(days=1)
        self._shared_hash = bcrypt.hashpw(b"nobody", bcrypt.gensalt(CHEAP_COST)).decode()
        self._called: list[Seeded] = []

    async def run(self) -> list[Seeded]:
        (head,) = await self._database.rows(HEAD)
        at: ledger.Head = (head.sequence, head.hash)
        for batch in batches(self._accounts()):
            at = await self._write(at, batch, [created(account) for account in batch])
        while at[0] < self._plan.ledger_rows:
            about_nobody = min(BATCH, self._plan.ledger_rows - at[0])
            at = await self._write(at, [], [self._event(number) for number in range(about_nobody)])
        await self._revoke()
        return self._called

    async def _revoke(self) -> None:
        """Without ledger rows: what a start reads is the table."""
        ends = datetime.now(UTC) + timedelta(hours=12)
        for number in range(0, self._plan.revocations, BATCH):
            count = min(BATCH, self._plan.revocations - number)
            made = [Revocation(uuid.uuid4().hex, str(uuid.uuid4()), ends) for _ in range(count)]
            async with self._database.transaction() as transaction:
                await transaction.execute(insert(tables.revocations), [rows.revocation_values(each) for each in made])
            self._progress(count)

    async def _write(self, head: ledger.Head, accounts: list[Account], events: list[Event]) -> ledger.Head:
        chained: list[LedgerRow] = []
        for event in events:
            chained.append(ledger.append(head, event))
            head = (chained[-1].sequence, chained[-1].hash)
        async with self._database.transaction() as transaction:
            if accounts:
                await transaction.execute(insert(tables.accounts), [rows.account_values(each) for each in accounts])
                held = [rows.secret_values(each.id, secret) for each in accounts for secret in each.secrets]
                await transaction.execute(insert(tables.secrets), held)
            await transaction.execute(insert(tables.ledger), [rows.ledger_values(each) for each in chained])
            await transaction.execute(update(tables.ledger_head).values(sequence=head[0], hash=head[1]))
        self._progress(len(chained))
        return head

    def _accounts(self) -> Iterator[Account]:
        plan = self._plan
        every = max(1, plan.count // plan.called) if plan.called else plan.count + 1
        for number in range(plan.count):
            called = number % every == 0 and len(self._called) < plan.called
            yield self._account(number, called=called)

    def _account(self, number: int, *, called: bool) -> Account:
        account_id, time = str(uuid.uuid4()), self._begun + timedelta(milliseconds=number)
        client_id = f"sa_dev_{self._plan.name}_{number:08x}"
        secret = self._secret(account_id, client_id, time) if called else self._nobodys(number, time)
        return Account(
            id=account_id,
            client_id=client_id,
            name=f"{self._plan.name}-{number}",
            role=self._plan.role,
            create_time=time,
            update_time=time,
            rate_limit=self._plan.rate_limit,
            secrets=(secret,),
        )

    def _secret(self, account_id: str, client_id: str, time: datetime) -> Secret:
        made, cost = secrets.generate(), self._plan.cold_cost
        hashed = bcrypt.hashpw(made.text.encode(), bcrypt.gensalt(cost)).decode() if cost else self._shared_hash
        tag = None if cost else self._vault.secret_tag(client_id, made.id, made.text)
        self._called.append(Seeded(account_id, client_id, made.text))
        return Secret(made.id, hashed, time, time + SECRET_LIFETIME, tag)

    def _nobodys(self, number: int, time: datetime) -> Secret:
        return Secret(f"{self._plan.name}{number:010d}", self._shared_hash, time, time + SECRET_LIFETIME)

    def _event(self, number: int) -> Event:
        time = self._begun + timedelta(milliseconds=number)
        return Event(time, SYSTEM, EventKind.ACCOUNT_UPDATED, str(uuid.uuid4()), {"seeded": number})


def created(account: Account) -> Event:
    detail: dict[str, Any] = {"client_id": account.client_id, "seeded": True}
    return Event(account.create_time, SYSTEM, EventKind.ACCOUNT_CREATED, account.id, detail)


def batches(accounts: Iterator[Account]) -> Iterator[list[Account]]:
    batch: list[Account] = []
    for account in accounts:
        batch.append(account)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
