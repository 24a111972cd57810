"""The slow way of client authentication, against a real store and real bcrypt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from artstore_grpc import secrets
from artstore_grpc.assertions import Assertions, StoredUsedAssertions
from artstore_grpc.attempts import Attempts
from artstore_grpc.authentication import Authenticator
from artstore_grpc.changes import Changes, Target
from artstore_grpc.client_certificates import ClientCertificates
from artstore_grpc.counters import HASH_BUCKETS, Distribution
from artstore_grpc.credentials import Credentials
from artstore_grpc.deliveries import Deliveries
from artstore_grpc.ephemeral.memory import MemoryLimiter
from artstore_grpc.errors import EtagMismatch, InvalidClient, RateLimited, StoreUnavailable
from artstore_grpc.failures import FREE_FAILURES
from artstore_grpc.keys import Keyring
from artstore_grpc.model import Account, Role
from artstore_grpc.records import REPORTS, SYSTEM, Event, EventKind
from artstore_grpc.refusals import Refusals
from artstore_grpc.replays import Replays
from artstore_grpc.replica import Replica
from artstore_grpc.rotation import Rotation, new_secret
from artstore_grpc.secrets import Hasher, NewSecret
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.usage import Usage
from artstore_grpc.vault import Vault, new_root
from tests.rules.house import patient

ID = str(uuid4())
COST = 8
"""About 15 ms: slow enough to be given up on."""


def now() -> datetime:
    return datetime.now(UTC)


class Office:
    """One account with one fresh secret, and what authenticates it."""

    def __init__(self, store: SqlStore) -> None:
        vault = Vault(new_root())
        self.store = store
        self.hasher = Hasher(cost=COST, threads=1, queue=32)
        self.replica = Replica(store, now, outage_window=timedelta(minutes=5))
        self.usage = Usage(store)
        self.failures = patient()
        attempts = Attempts(store=store, replica=self.replica, hasher=self.hasher, failures=self.failures, now=now)
        refusals = Refusals(self.replica, self.failures)
        self.authenticator = Authenticator(
            replica=self.replica,
            keyring=Keyring(store, vault, now, algorithm="ES256", issuer="http://issuer.test"),
            vault=vault,
            attempts=attempts,
            assertions=Assertions(
                replica=self.replica,
                used=StoredUsedAssertions(store, self.replica),
                limiter=MemoryLimiter(),
                refusals=refusals,
                issuer="http://issuer.test",
                now=now,
            ),
            certificates=ClientCertificates(replica=self.replica, refusals=refusals, now=now),
            usage=self.usage,
            issuer="http://issuer.test",
            audience="artstore",
            now=now,
        )
        deliveries = Deliveries(
            vault=vault, sinks=Sinks(), issuer="http://issuer.test", logger=configured("error"), now=now
        )
        changes = Changes(store=store, replica=self.replica, replays=Replays(vault), now=now)
        self.rotation = Rotation(changes=changes, hasher=self.hasher, usage=self.usage, deliveries=deliveries, now=now)
        self.made: NewSecret
        self.account: Account

    async def open(self) -> None:
        await self.replica.load()
        bare = Account(ID, "sa_dev_x_12345678", "name", Role.USER, now(), now())
        self.made, secret = await new_secret(self.hasher, now, bare)
        self.account = replace(bare, secrets=(secret,))
        async with self.store.unit() as unit:
            await unit.add_account(self.account)
            unit.record(Event(now(), SYSTEM, EventKind.ACCOUNT_CREATED, ID, {}))
        self.hasher.durations = Distribution(HASH_BUCKETS)

    async def enter(self, text: str = "") -> Any:
        return await self.authenticator.client(Credentials(self.account.client_id, text or self.made.text), "1.2.3.4")

    def wrong(self, number: int) -> str:
        """A well-formed secret with the account's own secret id, which is not secret."""
        body = f"{secrets.PREFIX}{self.made.id}_{number:0>{secrets.RANDOM_LENGTH}}"
        return body + secrets.checksum(body)


@pytest_asyncio.fixture
async def office(store: SqlStore) -> AsyncIterator[Office]:
    made = Office(store)
    await made.open()
    yield made
    made.hasher.close()


@pytest.mark.parametrize("kind", sorted(REPORTS))
async def test_what_was_denied_changes_nothing(office: Office, kind: EventKind) -> None:
    """A row that says that somebody failed in an account's name leaves the account in memory: else whoever fails would
    have it forgotten, and read again, as often as he likes. A row that tells of a change doesn't."""
    await office.enter()
    await office.replica.catch_up()
    await office.enter()
    for row_kind, kept in ((kind, True), (EventKind.ACCOUNT_UPDATED, False)):
        async with office.store.unit() as unit:
            unit.record(Event(now(), SYSTEM, row_kind, ID, {}))
        await office.replica.catch_up()
        assert (office.replica.remembered(office.account.client_id) is not None) is kept


@asynccontextmanager
async def settled(condition: Callable[[], bool]) -> AsyncIterator[None]:
    yield
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a thread ends it
            await asyncio.sleep(0.005)


async def test_equal_callers_are_one_hash(office: Office) -> None:
    """A hundred first callers with one right secret cost one bcrypt, and all get in."""
    callers = await asyncio.gather(*(office.enter() for _ in range(100)))
    await asyncio.sleep(0)
    assert {caller.account.id for caller in callers} == {ID}
    assert office.hasher.durations.count == 1


async def test_a_caller_that_gives_up_earns_its_tag_all_the_same(office: Office) -> None:
    """A deadline shorter than bcrypt does not throw the work away: the tag is stored, and the next try needs none."""
    await office.replica.account_by_client_id(office.account.client_id)
    async with settled(lambda: office.hasher.durations.count == 1):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await office.enter()
    await office.enter()
    await asyncio.sleep(0.1)
    stored = await office.store.account(ID)
    assert stored is not None
    assert stored.secrets[0].tag is not None
    assert office.hasher.durations.count == 1


async def test_failures_count_whoever_waits_for_them(office: Office) -> None:
    """Forty wrong secrets at once, each given up on at once, cost ten hashes and are counted: the next is refused."""
    await office.replica.account_by_client_id(office.account.client_id)
    tries = [asyncio.create_task(office.enter(office.wrong(n))) for n in range(40)]
    await asyncio.sleep(0.01)
    for task in tries:
        task.cancel()
    await asyncio.gather(*tries, return_exceptions=True)
    async with settled(lambda: office.hasher.pending == 0):
        pass
    assert office.hasher.durations.count <= FREE_FAILURES
    with pytest.raises(RateLimited):
        await office.enter(office.wrong(99))


async def test_a_tag_comes_before_any_back_off(office: Office) -> None:
    """A secret that has its tag is accepted although its source has failed too often."""
    await office.enter()
    for number in range(FREE_FAILURES):
        with pytest.raises(InvalidClient):
            await office.enter(office.wrong(number))
    with pytest.raises(RateLimited):
        await office.enter(office.wrong(99))
    assert (await office.enter()).account.id == ID


async def test_in_an_outage_only_tags_prove(office: Office) -> None:
    """With the database down an account without a tag, a wrong secret and an unknown id are refused alike."""
    await office.replica.account_by_client_id(office.account.client_id)
    office.replica.outage_since = 0.0
    office.replica._window_seconds = float("inf")
    for credentials in (
        Credentials(office.account.client_id, office.made.text),
        Credentials(office.account.client_id, office.wrong(1)),
        Credentials("sa_dev_nobody_00000000", office.made.text),
    ):
        with pytest.raises(StoreUnavailable):
            await office.authenticator.client(credentials, "1.2.3.4")
    assert office.hasher.durations.count == 0


@pytest.mark.parametrize("ended", ["revoked", "suspended"])
async def test_a_dead_secret_makes_no_successor(office: Office, ended: str) -> None:
    """A secret revoked, or an account suspended, between authentication and the unit can't be rotated any more."""
    caller = await office.enter()
    async with office.store.unit() as unit:
        account = await unit.account(ID)
        assert account is not None
        await unit.save_account(
            replace(account, secrets=()) if ended == "revoked" else replace(account, suspended=True)
        )
    with pytest.raises(InvalidClient):
        await office.rotation.rotate_secret(Target(ID), caller, None)
    stored = await office.store.account(ID)
    assert stored is not None
    assert len(stored.secrets) == (0 if ended == "revoked" else 1)


async def test_what_is_refused_costs_no_hash(office: Office) -> None:
    """A rotation with a stale etag is refused before a hash is computed for it."""
    caller = await office.enter()
    before = office.hasher.durations.count
    with pytest.raises(EtagMismatch):
        await office.rotation.rotate_secret(Target(ID, "stale"), caller, None)
    assert office.hasher.durations.count == before


async def test_a_ledger_that_went_back_is_noticed(office: Office) -> None:
    """After a failover that lost commits the replica forgets what it knew, instead of missing what comes next."""
    await office.replica.catch_up()
    await office.replica.account_by_client_id(office.account.client_id)
    office.replica.trust.head = (office.replica.sequence + 5, bytes(32))
    await office.replica.catch_up()
    await office.replica.poll()
    assert office.replica.sequence == (await office.store.head())[0]
    assert office.account.client_id not in office.replica._accounts
