"""Replicas as processes, found in Redis and by DNS: they come, drain, die and return, and clients follow."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from artstore.identity import Client as SdkClient
from artstore.identity import RetryPolicy, SyncTokenSource
from artstore.identity.redis_replicas import RedisAway, RedisReplicas

from artstore_grpc.ephemeral.registration import HEARTBEAT, TIMEOUT, TTL
from tests.dns import NameServer
from tests.processes.balancer import free_ports
from tests.processes.service import Client, Installation, Service, issued, replicas, until
from tests.processes.steady import unlimited
from tests.servers import Redis

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

NOW = timedelta(microseconds=1)
SLACK_SECONDS = 5.0
"""For a busy machine."""
DELAY_SECONDS = 10
"""Of a drain: long enough to see, on such a machine too, that who drains is gone before it closes."""


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis of this test's own."""
    with Redis() as server:
        yield server


@pytest.fixture
def seen(redis: Redis) -> RedisReplicas:
    """What is registered, looked up anew each time."""
    return RedisReplicas(redis.url(), refresh=NOW)


def addresses(seen: RedisReplicas) -> set[str]:
    try:
        return {replica.address for replica in seen.replicas() if replica.ready}
    except RedisAway:
        return set()


def test_the_life_of_registrations(
    tmp_path: Path, on_postgres: Installation, redis: Redis, seen: RedisReplicas
) -> None:
    """A process is found when it is ready, and gone when it drains, before its doors close; killed it is gone within
    the TTL; and after a restart of Redis those who live are found again."""
    draining = {"ARTSTORE_REDIS_URL": redis.url(), "ARTSTORE_DRAIN_DELAY": str(DELAY_SECONDS)}
    with replicas(tmp_path, on_postgres.environment | draining, 3) as services:
        at = [service.grpc_address for service in services]
        until(lambda: addresses(seen) == set(at), SLACK_SECONDS, "all are found")
        services[0].terminate()
        until(lambda: at[0] not in addresses(seen), DELAY_SECONDS, "the one that drains is gone")
        assert services[0].running, "it was to be gone before it closed"
        assert services[0].wait() == 0
        killed = time.monotonic()
        services[1].kill()
        until(lambda: addresses(seen) == {at[2]}, TTL.total_seconds() + SLACK_SECONDS, "the killed one is gone")
        print(f"killed, and gone after {time.monotonic() - killed:.2f} s")
        redis.kill()
        time.sleep(2 * HEARTBEAT.total_seconds())  # so that a heartbeat fails
        assert services[2].running
        redis.start()
        back = time.monotonic()
        within = (HEARTBEAT + TIMEOUT).total_seconds() + SLACK_SECONDS
        until(lambda: addresses(seen) == {at[2]}, within, "the one that lives is found again")
        print(f"found again {time.monotonic() - back:.2f} s after Redis was back")


def test_a_start_that_waits(tmp_path: Path, on_postgres: Installation, redis: Redis, seen: RedisReplicas) -> None:
    """A process whose database is away is registered, and not ready."""
    nowhere = {"ARTSTORE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", "ARTSTORE_REDIS_URL": redis.url()}
    with ExitStack() as stack:
        service = Service(tmp_path / "service", on_postgres.environment | nowhere)
        stack.callback(service.kill)
        service.spawn().logged("waiting for the database")
        (replica,) = until(seen.replicas, 5, "it is registered")
        assert not replica.ready
        service.terminate()
        assert service.wait() == 0
        assert seen.replicas() == []


def test_an_address_that_names_nobody(tmp_path: Path, on_postgres: Installation, redis: Redis) -> None:
    """Bound to every interface and told nothing else, a process isn't registered and says so; told an address, it is
    found there."""
    everywhere = {"ARTSTORE_REDIS_URL": redis.url(), "ARTSTORE_GRPC_ADDRESS": "0.0.0.0:0"}
    secured = on_postgres.environment | everywhere | {"ARTSTORE_INSECURE_PUBLIC": "true"}
    with Service(tmp_path / "one", secured) as service:
        assert "ADVERTISE_ADDRESS" in service.logged("not registered")["cause"]
    with Service(tmp_path / "two", secured | {"ARTSTORE_ADVERTISE_ADDRESS": "127.0.0.1:0"}) as service:
        port = service.grpc_address.rpartition(":")[2]
        assert service.logged("registered")["address"] == f"127.0.0.1:{port}"


def test_workers(tmp_path: Path, redis: Redis, seen: RedisReplicas) -> None:
    """Each worker process registers itself; to clients they are one address; none is left after a stop."""
    settings = {"ARTSTORE_REDIS_URL": redis.url(), "ARTSTORE_WORKERS": "2", "ARTSTORE_DATA_DIR": str(tmp_path / "var")}
    with Service(tmp_path / "service", settings) as service:
        until(lambda: len(seen.replicas()) == 2, 60, "both are registered")
        until(lambda: all(each.ready for each in seen.replicas()), 60, "both are ready")
        until(lambda: seen.current() == (service.grpc_address,), 10, "clients see one address")
        service.terminate()
        assert service.wait(60) == 0
        assert seen.replicas() == []


def test_clients_find_them_in_redis(
    tmp_path: Path, on_postgres: Installation, redis: Redis, seen: RedisReplicas
) -> None:
    """Calls are spread over the replicas; without one retry none fails while replicas join and drain; one that is
    killed costs none either, by the retries; with Redis away they go on."""
    draining = {"ARTSTORE_REDIS_URL": redis.url(), "ARTSTORE_DRAIN_DELAY": str(DELAY_SECONDS)}
    environment = on_postgres.environment | draining
    third = Service(tmp_path / "third", environment)
    with replicas(tmp_path, environment, 2) as services, ExitStack() as stack:
        with Client(services[0].grpc_address, on_postgres) as client:
            account = unlimited(client)
        until(lambda: len(addresses(seen)) == 2, 5, "both are found")

        async def lived() -> None:
            discovery = RedisReplicas(redis.url())
            async with SdkClient(discovery=discovery, retry=RetryPolicy(max_attempts=1), **account) as client:
                await calls(client, 50)
                assert min(map(issued, services)) >= 20, "one of the two was left out"
                stack.callback(third.kill)
                third.spawn()
                await calling(client, third)
                services[0].terminate()
                await calling(client, services[0], ends=True)
            async with SdkClient(discovery=discovery, **account) as client:
                await calls(client, 10)
                redis.kill()
                services[1].kill()
                await calls(client, 100)
                assert issued(third) > 100

        asyncio.run(lived())


async def calls(client: SdkClient, count: int) -> None:
    for _ in range(count):
        assert (await client.issue_token()).access_token


async def calling(client: SdkClient, service: Service, *, ends: bool = False) -> None:
    """Calls until a process has had some calls, or until it has ended."""
    deadline = time.monotonic() + 60
    while service.running if ends else not (said(service, "ready") and issued(service) > 10):
        await calls(client, 5)
        assert time.monotonic() < deadline


def said(service: Service, event: str) -> bool:
    return any(line["event"] == event for line in service.lines())


def test_clients_find_them_by_dns(tmp_path: Path, on_postgres: Installation) -> None:
    """A name with three addresses: calls are spread over those that answer, one that dies costs none, and a name that
    has changed is looked up again when a connection ends; in threads likewise."""
    (port,) = free_ports(1)
    hosts = [f"127.0.0.{number}" for number in (1, 2, 3)]
    if not all(map(bindable, hosts)):
        hosts = hosts[:1]  # elsewhere than on Linux the loopback has one address
    with ExitStack() as stack:
        services = [
            stack.enter_context(
                Service(tmp_path / host, on_postgres.environment | {"ARTSTORE_GRPC_ADDRESS": f"{host}:{port}"})
            )
            for host in hosts
        ]
        dns = stack.enter_context(NameServer(*hosts[:2]))
        with Client(services[0].grpc_address, on_postgres) as client:
            account = unlimited(client)

        async def lived() -> None:
            async with SdkClient(dns.target(port), **account) as client:
                await calls(client, 50)
                assert min(map(issued, services[:2])) >= 20
                dns.addresses = tuple(hosts)
                asked = dns.asked
                services[0].kill()
                deadline = time.monotonic() + 30
                while issued(services[-1]) < 10:
                    await calls(client, 10)
                    assert time.monotonic() < deadline, "the third address was never called"
                assert dns.asked > asked

        asyncio.run(lived())
        with SyncTokenSource(dns.target(port), **account) as source:
            assert source.token()


def bindable(host: str) -> bool:
    try:
        with socket.create_server((host, 0)):
            return True
    except OSError:
        return False
