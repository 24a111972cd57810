"""The pool of connections and how long one is waited for, in either database; and a database that goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.store.schema import upgrade
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import new_key
from tests.installation import Account, Installation
from tests.processes.service import until
from tests.servers import Postgres
from tests.telemetry.scrapes import Change, Scrape

HELD_SECONDS = 0.3
VAIN_SECONDS = 2.0
"""Enough to connect in, on a busy machine."""
NOTICED_SECONDS = 30.0


@asynccontextmanager
async def opened(url: str, *, size: int = 1, wait: timedelta = timedelta(seconds=30)) -> AsyncIterator[SqlStore]:
    store = SqlStore(url, pool_size=size, connect_timeout=wait)
    try:
        yield store
    finally:
        await store.close()


async def test_connections_are_seen(store_url: str) -> None:
    """Made when they are needed, in use while somebody has one, idle after that; never more than there may be."""
    async with opened(store_url, size=3) as store:
        pool = store.connections
        assert (pool.size, pool.in_use, pool.idle) == (3, 0, 0)
        async with store.unit():
            assert (pool.in_use, pool.idle) == (1, 0)
            await store.ping()
            assert (pool.in_use, pool.idle) == (1, 1)
        assert (pool.size, pool.in_use, pool.idle) == (3, 0, 2)


async def test_a_wait_is_measured(store_url: str) -> None:
    """Of two who want the only connection the second waits for as long as the first has it; the histogram says so, and
    counts each of them once."""
    async with opened(store_url) as store:
        await store.ping()
        waits = store.connections.waits
        before, seconds = waits.count, waits.sum
        async with store.unit():
            reading = asyncio.create_task(store.ping())
            await asyncio.sleep(HELD_SECONDS)
            assert not reading.done()
        await reading
        assert waits.count == before + 2
        assert HELD_SECONDS / 2 <= waits.sum - seconds < HELD_SECONDS + 30
        took = []
        for _ in range(5):
            before, seconds = waits.count, waits.sum
            await store.ping()
            assert waits.count == before + 1
            took.append(waits.sum - seconds)
        assert min(took) < HELD_SECONDS / 2


async def test_a_wait_in_vain_is_measured(store_url: str) -> None:
    """Who gives up has waited too; and a writer counts as a reader does."""
    wait = timedelta(seconds=VAIN_SECONDS)
    async with opened(store_url, wait=wait) as store:
        await store.ping()
        waits = store.connections.waits
        async with store._database._reads.connect():
            before, seconds = waits.count, waits.sum
            for attempt in (store.ping, lambda: write(store)):
                with pytest.raises(StoreUnavailable):
                    await attempt()
        assert waits.count == before + 2
        assert waits.sum - seconds >= 2 * VAIN_SECONDS * 0.9


async def write(store: SqlStore) -> None:
    async with store.unit():
        pass


async def test_what_is_cancelled_goes_back(store_url: str) -> None:
    """Those who give up, waiting or at work, leave no connection in use."""
    async with opened(store_url, size=2) as store:
        tasks = [asyncio.create_task(store.ledger(0, 1000)) for _ in range(20)]
        await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.ping()
        assert store.connections.in_use == 0


def test_over_the_port(tmp_path: Path) -> None:
    """A service's own pool: its size is the setting, what it does is waited for, and the parts add up."""
    with Installation(tmp_path, database_pool_size=4) as service:
        with Change(service) as change:
            service.account("user")
        scrape = Scrape.of(service)
    assert scrape.value("artstore_database_pool_size") == 4
    connections = [scrape.value("artstore_database_pool_connections", state=state) for state in ("in_use", "idle")]
    assert 1 <= sum(connections) <= 4
    waited = "artstore_database_pool_wait_seconds"
    assert change.of(f"{waited}_count") >= 2
    assert change.of(f"{waited}_sum") > 0
    assert scrape.value(f"{waited}_bucket", le="+Inf") == scrape.value(f"{waited}_count")


@pytest.mark.slow
def test_the_database_goes_away(tmp_path: Path) -> None:
    """While PostgreSQL is down the service says so, is degraded, lags further behind by the second, and issues tokens
    of outage mode; once it is back all that is over."""
    with Postgres() as server:
        asyncio.run(upgrade(server.url()))
        settings = {"database_url": server.url(), "key_encryption_key": new_key(), "issuer": "http://issuer.test"}
        with Installation(tmp_path, **settings) as service:
            account = service.account("user")
            issue(service, account)
            assert states(service) == (1, 0)
            server.kill()
            until(lambda: states(service) == (0, 1), NOTICED_SECONDS, "that the database is down")
            first = Scrape.of(service).value("artstore_ledger_lag_seconds")
            until(
                lambda: Scrape.of(service).value("artstore_ledger_lag_seconds") > first + 1, NOTICED_SECONDS, "the lag"
            )
            with Change(service) as change:
                issue(service, account)
            assert change.all_of("artstore_tokens_issued_total") == {("outage",): 1}
            server.start()
            until(lambda: states(service) == (1, 0), NOTICED_SECONDS, "that it is back")
            until(lambda: Scrape.of(service).value("artstore_ledger_lag_seconds") < 2, NOTICED_SECONDS, "no lag")


def states(service: Installation) -> tuple[float, float]:
    scrape = Scrape.of(service)
    return scrape.value("artstore_database_up"), scrape.value("artstore_degraded")


def issue(service: Installation, account: Account) -> None:
    service.tokens.IssueToken(
        pb.IssueTokenRequest(grant_type="client_credentials", client_id=account.client_id, client_secret=account.secret)
    )
