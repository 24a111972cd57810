"""Which assertions were used: one suite over every place that remembers it, and what happens when that is gone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
import redis.asyncio

from artstore_grpc.assertions import StoredUsedAssertions
from artstore_grpc.ephemeral.protocol import UsedAssertions
from artstore_grpc.ephemeral.used_assertions import RedisUsedAssertions
from artstore_grpc.errors import StoreUnavailable, Unavailable
from artstore_grpc.replica import Replica
from artstore_grpc.store.schema import upgrade
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import new_key
from tests.api.assertion_cases import create, issue
from tests.api.conftest import ISSUER, administrator, first_account
from tests.api.doors import GrpcDoor, refused
from tests.installation import Installation
from tests.processes.service import until
from tests.servers import Postgres, Redis
from tests.signers import Signer

RACERS = 50
SOON = timedelta(minutes=1)
PATIENCE = timedelta(seconds=3)
"""With a Redis that a busy machine runs; the pause of a silent one is longer."""


def now() -> datetime:
    return datetime.now(UTC)


def fresh() -> bytes:
    return os.urandom(32)


async def stored(url: str) -> tuple[StoredUsedAssertions, SqlStore]:
    store = SqlStore(url)
    replica = Replica(store, now, outage_window=timedelta(minutes=5))
    await replica.load()
    return StoredUsedAssertions(store, replica), store


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def place(request: pytest.FixtureRequest) -> str:
    """The URL of a place that remembers."""
    urls = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "redis": "redis_server_url"}
    return str(request.getfixturevalue(urls[request.param]))


@pytest_asyncio.fixture
async def replicas(place: str) -> AsyncIterator[list[UsedAssertions]]:
    """Two replicas' view of one place."""
    if not place.startswith(("sqlite", "postgresql")):
        shared: list[UsedAssertions] = [RedisUsedAssertions(place, timeout=PATIENCE) for _ in range(2)]
        yield shared
        for each in shared:
            await each.close()
        return
    opened = [await stored(place) for _ in range(2)]
    yield [used for used, _ in opened]
    for used, store in opened:
        await used.close()
        await store.close()


async def test_once(replicas: list[UsedAssertions]) -> None:
    """The first use is the only one, whichever replica it comes to; other assertions are their own."""
    one, other = replicas
    key = fresh()
    assert await one.use(key, now() + SOON, now())
    assert not await one.use(key, now() + SOON, now())
    assert not await other.use(key, now() + SOON, now())
    assert await other.use(fresh(), now() + SOON, now())


async def test_raced(replicas: list[UsedAssertions]) -> None:
    """Of 50 uses at once by two replicas exactly one is the first; ten times over."""
    for _ in range(10):
        key, until = fresh(), now() + SOON
        uses = [replicas[number % 2].use(key, until, now()) for number in range(RACERS)]
        assert sum(await asyncio.gather(*uses)) == 1


async def test_redis_forgets_in_time(redis_url: str) -> None:
    """Redis keeps a used assertion for as long as it could be valid, and not for good."""
    used = RedisUsedAssertions(redis_url, prefix=f"{uuid4().hex}:", timeout=PATIENCE)
    try:
        assert await used.use(fresh(), now() + SOON, now())
        assert await used.use(fresh(), now() - SOON, now())
        await asyncio.sleep(0.05)  # what had expired before it was used is kept for a millisecond
        async with redis.asyncio.from_url(redis_url) as client:
            [key] = await client.keys(f"{used._prefix}*")
            assert 50_000 < await client.pttl(key) <= 60_000
    finally:
        await used.close()


async def test_the_store_forgets_in_time(store: SqlStore) -> None:
    """The purge takes what has expired, in batches, and leaves the rest."""
    gone, kept = [fresh() for _ in range(5)], fresh()
    for key in gone:
        assert await store.use_assertion(key, now() - SOON)
    assert await store.use_assertion(kept, now() + SOON)
    assert [await store.purge_expired(now(), now() - SOON, 3) for _ in range(3)] == [3, 2, 0]
    assert not await store.use_assertion(kept, now() + SOON)
    assert await store.use_assertion(gone[0], now() + SOON)


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis that this test may stop."""
    with Redis() as server:
        yield server


async def test_redis_down(own_redis: Redis) -> None:
    """Fails closed, each time, and goes on by itself when Redis is back: no second place is asked."""
    used = RedisUsedAssertions(own_redis.url(), timeout=PATIENCE)
    assert await used.use(fresh(), now() + SOON, now())
    own_redis.kill()
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await used.use(fresh(), now() + SOON, now())
        assert caught.value.reason == "REPLAY_CHECK_UNAVAILABLE"
        assert caught.value.retry_after
    own_redis.start()
    assert await used.use(fresh(), now() + SOON, now())
    await used.close()


async def test_redis_silent(own_redis: Redis) -> None:
    """A Redis that doesn't answer is down after `timeout`; nobody waits for longer."""
    used = RedisUsedAssertions(own_redis.url(), timeout=PATIENCE)
    assert await used.use(fresh(), now() + SOON, now())
    async with redis.asyncio.from_url(own_redis.url()) as client:
        await client.execute_command("CLIENT", "PAUSE", 5000, "ALL")
        with pytest.raises(Unavailable):
            await used.use(fresh(), now() + SOON, now())
    await used.close()


async def test_the_store_down(store_url: str) -> None:
    """In an outage the store's refusal comes at once, before a connection is tried."""
    used, store = await stored(store_url)
    used._replica.outage_since = 0.0
    with pytest.raises(StoreUnavailable):
        await used.use(fresh(), now() + SOON, now())
    await store.close()


# In a whole service


def test_a_service_without_its_redis(tmp_path: Path, own_redis: Redis) -> None:
    """With Redis configured and down an assertion is UNAVAILABLE, not checked in the store instead; secrets go on."""
    with Installation(tmp_path, redis_url=own_redis.url()) as service:
        door = GrpcDoor(str(service.started.grpc_address))
        root = administrator(service, door)
        signer, account = Signer(), create(root, Signer()).service_account
        assert issue(root, signer.assertion(account.client_id, root.issuer)).access_token
        own_redis.kill()
        with refused("UNAVAILABLE", "REPLAY_CHECK_UNAVAILABLE"):
            issue(root, signer.assertion(account.client_id, root.issuer))
        assert service.token(service.administrator.client_id, service.administrator.client_secret)
        own_redis.start()
        assert issue(root, signer.assertion(account.client_id, root.issuer)).access_token
        door.close()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A migrated PostgreSQL that this test may stop."""
    with Postgres() as server:
        asyncio.run(upgrade(server.url()))
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("with_redis", [True, False], ids=["redis", "no redis"])
def test_an_outage(tmp_path: Path, own_postgres: Postgres, own_redis: Redis, with_redis: bool) -> None:
    """With the database down an account in memory goes on by its assertions where Redis can tell that they are new, and
    not otherwise; one that fails is answered as for an account that isn't in memory."""
    settings = {"database_url": own_postgres.url(), "issuer": ISSUER, "key_encryption_key": new_key()}
    with Installation(tmp_path, **settings, redis_url=own_redis.url() if with_redis else "") as service:
        door = GrpcDoor(str(service.started.grpc_address))
        root = administrator(service, door)
        client_id, signer = create(root, Signer()).service_account.client_id, Signer()
        issue(root, signer.assertion(client_id, ISSUER))
        own_postgres.kill()
        known = first_account(service)
        until(lambda: root.issue(known).expires_in <= 300, 10, "the outage noticed")
        good = signer.assertion(client_id, ISSUER)
        if with_redis:
            assert issue(root, good).expires_in <= 300
        strangers = Signer(number=9).assertion(client_id, ISSUER)
        for refusal in (good, strangers, signer.assertion("sa_dev_nobody_00000000", ISSUER)):
            with refused("UNAVAILABLE", "DATABASE_UNAVAILABLE"):
                issue(root, refusal)
        door.close()
