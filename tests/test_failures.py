"""Whom failed authentications hold up: the secret and the source that failed, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
import pytest_asyncio

from artstore_grpc import lookups, secrets
from artstore_grpc.counters import HASH_BUCKETS, Distribution
from artstore_grpc.credentials import Credentials
from artstore_grpc.ephemeral.back_off import MemoryBackOff
from artstore_grpc.errors import InvalidClient, RateLimited
from artstore_grpc.failures import FREE_FAILURES, NEIGHBOURS_RETRY, Failures
from artstore_grpc.model import Account, Role
from artstore_grpc.records import SYSTEM, Event, EventKind
from artstore_grpc.rotation import new_secret
from artstore_grpc.store.sql import SqlStore
from tests.ephemeral.conftest import Clock
from tests.test_attempts import Office, now

FREE_OF_SOURCE = 25
NAT = "203.0.113.7"


class Town(Office):
    """Accounts behind one address."""

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store)
        self.clock = Clock()
        self.failures._back_off = MemoryBackOff(self.clock)
        self.failures._free_of_source = FREE_OF_SOURCE

    async def neighbour(self) -> tuple[Account, str]:
        """Another account, whose secret has not been used yet."""
        bare = Account(str(uuid4()), f"sa_dev_n_{uuid4().hex[:8]}", uuid4().hex, Role.USER, now(), now())
        made, secret = await new_secret(self.hasher, now, bare)
        account = replace(bare, secrets=(secret,))
        async with self.store.unit() as unit:
            await unit.add_account(account)
            unit.record(Event(now(), SYSTEM, EventKind.ACCOUNT_CREATED, account.id, {}))
        await self.replica.catch_up()
        return account, made.text

    async def come(self, client_id: str, text: str, source: str = NAT) -> None:
        await self.authenticator.client(Credentials(client_id, text), source)

    async def fail(self, times: int, source: str = NAT) -> None:
        """So many failures, each of an id of its own, all of which are looked at."""
        for _ in range(times):
            with pytest.raises(InvalidClient):
                await self.come(f"sa_dev_x_{uuid4().hex[:8]}", secrets.generate().text, source)


@pytest_asyncio.fixture
async def town(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    monkeypatch.setattr(lookups, "GATHER_SECONDS", 0.0)  # thousands of failures, one after the other
    made = Town(store)
    await made.open()
    yield made
    await made.replica.close()
    made.hasher.close()


async def test_a_source_is_held_up(town: Town) -> None:
    """Whatever ids it makes up; another source is not."""
    await town.fail(FREE_OF_SOURCE)
    with pytest.raises(RateLimited, match="Too many") as refused:
        await town.come("sa_dev_x_00000000", secrets.generate().text)
    assert refused.value.reason == "TOO_MANY_FAILURES"
    assert refused.value.cause == "backing off, by source: not in memory"
    await town.fail(1, "203.0.113.8")


async def test_a_network_is_one_source(town: Town) -> None:
    """A host that has a whole IPv6 /64 gains nothing by its other addresses; the next /64 is another's."""
    for number in range(FREE_OF_SOURCE):
        await town.fail(1, f"2001:db8:0:1::{number:x}")
    with pytest.raises(RateLimited):
        await town.come("sa_dev_x_00000000", secrets.generate().text, "2001:db8:0:1:ffff::1")
    await town.fail(1, "2001:db8:0:2::1")


async def test_neighbours_of_who_fails(town: Town) -> None:
    """Behind the same address: warm ones come in at once, and a first use of a new secret does so once its account has
    been read, for which it is told to come back within seconds, whatever the source's wait."""
    warm, text = await town.neighbour()
    await town.come(warm.client_id, text)
    await town.fail(FREE_OF_SOURCE)
    with pytest.raises(RateLimited):
        await town.come(warm.client_id, secrets.generate().text)
    await town.come(warm.client_id, text)
    fresh, new = await town.neighbour()
    with pytest.raises(RateLimited) as refused:
        await town.come(fresh.client_id, new)
    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= NEIGHBOURS_RETRY
    await town.replica.account_by_client_id(fresh.client_id)  # what the refusal has begun
    await town.come(fresh.client_id, new)


async def test_a_stale_pod(town: Town) -> None:
    """One that tries a dead secret each second for an hour slows itself down alone, and its source not at all."""
    account, text = await town.neighbour()
    await town.come(account.client_id, text)
    looked_at = 0
    for _ in range(3600):
        town.clock.advance(1)
        try:
            await town.come(account.client_id, f"{secrets.PREFIX}{'0' * 12}stale")
        except InvalidClient:
            looked_at += 1
        except RateLimited:
            pass
    assert FREE_FAILURES < looked_at <= FREE_FAILURES + 12
    await town.come(account.client_id, text)
    await town.fail(FREE_OF_SOURCE)


async def test_known_and_unknown_are_slowed_alike(town: Town) -> None:
    """By the same attempt, for as long, whether the account exists, is suspended, or doesn't."""
    known, text = await town.neighbour()
    await town.come(known.client_id, text)
    told = []
    for client_id in (known.client_id, "sa_dev_x_00000000"):
        wrong, seen = secrets.generate().text, []
        for _ in range(FREE_FAILURES + 3):
            try:
                await town.come(client_id, wrong, f"{NAT}{len(told)}")
            except InvalidClient:
                seen.append("denied")
            except RateLimited as refused:
                seconds = refused.retry_after.total_seconds() if refused.retry_after else 0
                seen.append(f"{seconds:.3f}")
                town.clock.advance(seconds)
        told.append(seen)
    assert told[0] == told[1]
    assert "denied" in told[0]
    assert "1.000" in told[0]


async def test_a_success_is_forgiven(town: Town) -> None:
    """A first use after nine failures of the same secret's id leaves nothing behind for it."""
    account, text = await town.neighbour()
    for _ in range(FREE_FAILURES - 1):
        with pytest.raises(InvalidClient):
            await town.come(account.client_id, guess(text))
    await town.come(account.client_id, text)
    for _ in range(FREE_FAILURES):
        with pytest.raises(InvalidClient):
            await town.come(account.client_id, guess(text))
    with pytest.raises(RateLimited):
        await town.come(account.client_id, guess(text))


def guess(text: str) -> str:
    """A well-formed secret with the same id."""
    body = text[: -secrets.CHECKSUM_LENGTH]
    other = body[:-1] + ("a" if body[-1] != "a" else "b")
    return other + secrets.checksum(other)


async def test_many_at_once(town: Town) -> None:
    """Of a hundred different guesses at one secret that come at once ten are looked at."""
    account, text = await town.neighbour()
    body = text[: -secrets.CHECKSUM_LENGTH]
    guesses = [f"{body[:-4]}{number:04}" for number in range(100)]
    town.hasher.durations = Distribution(HASH_BUCKETS)
    tries = [town.come(account.client_id, each + secrets.checksum(each)) for each in guesses]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, InvalidClient) for outcome in outcomes) <= FREE_FAILURES
    assert town.hasher.durations.count <= FREE_FAILURES


@pytest.mark.parametrize("free", [10, 100])
async def test_how_much_is_free(free: int) -> None:
    """What the setting says is free of a source's failures is."""
    failures = Failures(MemoryBackOff(), free_of_source=free)
    for _ in range(free):
        await failures.look_at_source(NAT, "")
        await failures.failed(NAT)
    with pytest.raises(RateLimited) as refused:
        await failures.look_at_source(NAT, "")
    assert refused.value.denied
    assert refused.value.retry_after is not None
    assert refused.value.retry_after <= timedelta(seconds=1.01)
