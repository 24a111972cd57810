"""What a process registers of itself is what clients read: over a real Redis, alone and as a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
import redis.asyncio
from artstore.identity.redis_replicas import SETTLING, RedisAway, RedisReplicas
from redis import Redis as RedisClient
from redis import RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.exceptions import NoPermissionError

from artstore_grpc.ephemeral import registration
from artstore_grpc.ephemeral.registration import TTL, Entry, Registration
from artstore_grpc.telemetry.logs import configured
from tests.ephemeral.conftest import Clock
from tests.installation import Log
from tests.servers import ClusterNode, Redis

STARTED = datetime(2026, 1, 31, 13, 59, 7, tzinfo=UTC)
NOW = timedelta(microseconds=1)
"""So that every look is a new one."""


class Process:
    """A registration that runs, and what it logs."""

    def __init__(self, server: Any, key: str, address: str, instance: str, started: datetime) -> None:
        self.ready = True
        self.log = Log()
        entry = Entry(address=address, version="1.2.3", started=started)
        self.registration = Registration(
            server,
            instance=instance or uuid4().hex,
            entry=entry,
            ready=lambda: self.ready,
            logger=configured("info", self.log),
            key=key,
        )
        self._task = asyncio.create_task(self.registration.keep())

    def turn(self, ready: bool) -> None:
        self.ready = ready
        self.registration.tell()

    async def die(self) -> None:
        """As SIGKILL would end it: nothing is taken away."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def stop(self) -> None:
        await self.die()
        await self.registration.remove()


@pytest_asyncio.fixture
async def start(redis_server_url: str, prefix: str) -> AsyncIterator[Callable[..., Process]]:
    """Starts processes that share a key of this test's own; they die with it."""
    made: list[Process] = []

    def process(address: str, *, instance: str = "", server: Any = redis_server_url) -> Process:
        made.append(Process(server, f"{prefix}replicas", address, instance, STARTED + timedelta(seconds=len(made))))
        return made[-1]

    yield process
    for each in made:
        await each.die()
        await each.registration.close()


@pytest.fixture
def seen(redis_server_url: str, prefix: str) -> Iterator[RedisReplicas]:
    """What clients see."""
    made = RedisReplicas(redis_server_url, key=f"{prefix}replicas", refresh=NOW)
    yield made
    made.close()


async def until(holds: Callable[[], Any], within: timedelta) -> float:
    """How many seconds it took until that held."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while not await asyncio.to_thread(holds):
        assert loop.time() - began < within.total_seconds(), "not in time"
        await asyncio.sleep(0.01)
    return loop.time() - began


DOCUMENT = Path(__file__).resolve().parents[2] / "docs/discovery.md"
RIGHTS = re.search(r"`(\+eval_ro [^`]+)`", DOCUMENT.read_text())[1].replace("artstore:replicas", "{key}")  # type: ignore[index]

SOON = timedelta(seconds=30)
"""On a busy machine."""


async def test_what_is_registered(start: Callable[..., Process], seen: RedisReplicas) -> None:
    """Address, version, readiness, instance and start are read as they were written, the oldest process first."""
    start("10.0.0.1:50051", instance="one")
    start("[2001:db8::2]:50051", instance="two").turn(False)
    await until(lambda: len(seen.replicas()) == 2, SOON)
    one, two = seen.replicas()
    assert (one.instance, one.address, one.version, one.ready, one.started) == (
        "one",
        "10.0.0.1:50051",
        "1.2.3",
        True,
        STARTED,
    )
    assert (two.instance, two.address, two.ready) == ("two", "[2001:db8::2]:50051", False)
    assert seen.current() == ("10.0.0.1:50051",)


async def test_readiness_is_told_at_once(
    start: Callable[..., Process], seen: RedisReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that turns unready, and ready again, is known to be so before its next heartbeat."""
    for name in ("HEARTBEAT", "TTL"):
        monkeypatch.setattr(registration, name, timedelta(hours=1))
    start("10.0.0.1:50051")
    process = start("10.0.0.2:50051")
    await until(lambda: len(seen.current()) == 2, SOON)
    process.turn(False)
    await until(lambda: seen.current() == ("10.0.0.1:50051",), SOON)
    process.turn(True)
    await until(lambda: len(seen.current()) == 2, SOON)


async def test_a_stop_takes_it_away(start: Callable[..., Process], seen: RedisReplicas) -> None:
    """Who stops in order is gone when `remove` returns."""
    start("10.0.0.1:50051")
    process = start("10.0.0.2:50051")
    await until(lambda: len(seen.current()) == 2, SOON)
    await process.stop()
    assert [replica.address for replica in seen.replicas()] == ["10.0.0.1:50051"]


@pytest.mark.slow
async def test_the_dead_are_gone_within_the_ttl(
    start: Callable[..., Process], seen: RedisReplicas, redis_server_url: str, prefix: str
) -> None:
    """Who dies without a word is gone TTL after its last heartbeat, by Redis' clock, and not sooner, while another
    lives; nothing is left of it in Redis; who lives is never missing."""
    start("10.0.0.1:50051")
    process = start("10.0.0.2:50051", instance="dead")
    await until(lambda: len(seen.current()) == 2, SOON)
    await process.die()
    with RedisClient.from_url(redis_server_url) as client:
        key = f"{prefix}replicas"
        written = int(client.hget(key, "dead").split()[0]) / 1e6
        asked = [0.0]

        def gone() -> bool:
            asked.append(time_of(client))
            addresses = [replica.address for replica in seen.replicas()]
            assert "10.0.0.1:50051" in addresses
            return "10.0.0.2:50051" not in addresses

        await until(gone, 4 * TTL)
        assert asked[-2] <= written + TTL.total_seconds() <= time_of(client)
        await until(lambda: not client.hexists(key, "dead"), SOON)
    print(f"gone {asked[-1] - written:.2f} s after its last heartbeat")


def time_of(client: RedisClient) -> float:
    """Redis' clock."""
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6)


async def test_workers_of_one_address(start: Callable[..., Process], seen: RedisReplicas) -> None:
    """Several processes behind one address are one address to call, for as long as one of them is ready; written again
    under the same instance an entry is replaced."""
    first, second = start("10.0.0.1:50051"), start("10.0.0.1:50051")
    await until(lambda: len(seen.replicas()) == 2, SOON)
    assert seen.current() == ("10.0.0.1:50051",)
    other = start("10.0.0.2:50051", instance="same")
    await until(lambda: "10.0.0.2:50051" in seen.current(), SOON)
    await other.die()
    start("10.0.0.3:50051", instance="same")
    await until(lambda: "10.0.0.3:50051" in seen.current(), SOON)
    assert len(seen.replicas()) == 3
    first.turn(False)
    await until(lambda: sum(replica.ready for replica in seen.replicas()) == 2, SOON)
    assert "10.0.0.1:50051" in seen.current()
    second.turn(False)
    await until(lambda: "10.0.0.1:50051" not in seen.current(), SOON)


async def test_the_last_ready_ones_are_kept(start: Callable[..., Process], seen: RedisReplicas) -> None:
    """Where nobody is ready, or Redis has forgotten everybody, the addresses that were ready last stay in use."""
    process = start("10.0.0.1:50051")
    await until(lambda: seen.current() == ("10.0.0.1:50051",), SOON)
    process.turn(False)
    await until(lambda: not any(replica.ready for replica in seen.replicas()), SOON)
    assert seen.current() == ("10.0.0.1:50051",)
    await process.stop()
    assert seen.replicas() == []
    assert seen.current() == ("10.0.0.1:50051",)


@pytest.mark.slow
async def test_a_redis_that_goes_and_comes(start: Callable[..., Process], caplog: pytest.LogCaptureFixture) -> None:
    """While Redis is away the known replicas stay, which is logged once on both sides; back and empty, it has them all
    again after one heartbeat and the time-out of a write."""
    with Redis() as server:
        process = start("10.0.0.1:50051", server=server.url())
        seen = RedisReplicas(server.url(), refresh=NOW, key=process.registration._key)
        await until(lambda: seen.current() == ("10.0.0.1:50051",), SOON)
        await until(lambda: '"registered"' in process.log.getvalue(), SOON)
        server.kill()
        with pytest.raises(RedisAway):
            await asyncio.to_thread(seen.replicas)
        assert [await asyncio.to_thread(seen.current) for _ in range(3)] == [("10.0.0.1:50051",)] * 3
        await until(lambda: '"not registered"' in process.log.getvalue(), SOON)
        server.start()
        seconds = await until(lambda: replicas_of(seen) == ["10.0.0.1:50051"], SOON)
        await until(lambda: process.log.getvalue().count('"registered"') == 2, SOON)
        assert process.log.getvalue().count('"not registered"') == 1
        seen.close()
    assert len([each for each in caplog.records if each.name == "artstore.identity"]) == 1
    print(f"registered again {seconds:.2f} s after Redis was back")


@pytest.mark.slow
async def test_nobody_is_left_when_redis_comes_back(start: Callable[..., Process], clock: Clock) -> None:
    """Who registers first after a restart doesn't get everybody's calls: those that were ready last are called for as
    long as they may not have registered again, but not who says to be unready; then those that have."""
    with Redis() as server:
        one, two, three = (start(f"10.0.0.{number}:50051", server=server.url()) for number in (1, 2, 3))
        seen = RedisReplicas(server.url(), refresh=NOW, key=one.registration._key, clock=clock)

        def looked() -> tuple[str, ...]:
            clock.advance(0.00001)
            return seen.current()

        everybody = tuple(f"10.0.0.{number}:50051" for number in (1, 2, 3))
        await until(lambda: looked() == everybody, SOON)
        await two.die()
        await three.die()
        server.kill()
        assert await asyncio.to_thread(looked) == everybody
        server.start()
        await until(lambda: replicas_of(seen) == ["10.0.0.1:50051"], SOON)
        assert await asyncio.to_thread(looked) == everybody
        one.turn(False)
        await until(lambda: looked() == everybody[1:], SOON)
        one.turn(True)
        await until(lambda: looked() == everybody, SOON)
        clock.advance(SETTLING.total_seconds())
        assert await asyncio.to_thread(looked) == everybody[:1]
        seen.close()


def replicas_of(seen: RedisReplicas) -> list[str]:
    try:
        return [replica.address for replica in seen.replicas()]
    except RedisAway:
        return []


async def test_a_redis_whose_clock_is_set_back(
    start: Callable[..., Process], seen: RedisReplicas, redis_server_url: str, prefix: str
) -> None:
    """An entry from Redis' future, as its clock had it before it was set back, holds for TTL from the next heartbeat of
    anybody, and not until the old time is reached; the replicas' own clocks have no part in any of this."""
    client = redis.asyncio.from_url(redis_server_url, decode_responses=True)
    key = f"{prefix}replicas"
    future = (await client.time())[0] * 1_000_000 + 3_600_000_000
    await client.hset(key, "dead", f"{future} 5000 {{}}")
    start("10.0.0.1:50051")
    await until(lambda: seen.current() == ("10.0.0.1:50051",), SOON)
    written = int((await client.hget(key, "dead")).split()[0])
    assert abs(written - (await client.time())[0] * 1_000_000) < 10_000_000
    await client.hset(key, "dead", f"{written - 6_000_000} 5000 {{}}")
    await until(lambda: not client_has(redis_server_url, key, "dead"), SOON)
    await client.aclose()


def client_has(url: str, key: str, field: str) -> bool:
    with RedisClient.from_url(url) as client:
        return bool(client.hexists(key, field))


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "1 5000",
        "x",
        "{now} 5000 [1]",
        "{now} 5000 {{",
        '{now} 5000 {{"address": "10.0.0.9:1"}}',
        '{now} 5000 {{"address": "10.0.0.9:1", "version": "1", "ready": true, "started": 5}}',
    ],
)
async def test_what_is_no_entry(
    start: Callable[..., Process], seen: RedisReplicas, redis_server_url: str, prefix: str, entry: str
) -> None:
    """What somebody else put there is passed over, by who writes and by who reads."""
    client = redis.asyncio.from_url(redis_server_url)
    now = (await client.time())[0] * 1_000_000
    await client.hset(f"{prefix}replicas", "odd", entry.format(now=now) if "{now}" in entry else entry)
    start("10.0.0.1:50051")
    await until(lambda: seen.current() == ("10.0.0.1:50051",), SOON)
    assert len(seen.replicas()) == 1
    await client.aclose()


@pytest.mark.slow
async def test_a_cluster(start: Callable[..., Process]) -> None:
    """On a Redis Cluster it is the same: one key, so one slot, and no other command than a cluster routes by it."""
    with ClusterNode() as node:
        writer = AsyncRedisCluster(host="127.0.0.1", port=node.port)
        reader = RedisCluster(host="127.0.0.1", port=node.port)
        process = start("10.0.0.1:50051", server=writer)
        seen = RedisReplicas(reader, refresh=NOW, key=process.registration._key)
        await until(lambda: seen.current() == ("10.0.0.1:50051",), SOON)
        await process.stop()
        assert seen.replicas() == []
        reader.close()
        await writer.aclose()


async def test_the_least_that_a_reader_needs(start: Callable[..., Process]) -> None:
    """The rights that docs/discovery.md has for clients let them read; and not write."""
    with Redis() as server:
        process = start("10.0.0.1:50051", server=server.url())
        key = process.registration._key
        rights = RIGHTS.format(key=key).split()
        with RedisClient(unix_socket_path=str(server.socket)) as administrator:
            administrator.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">secret", *rights)
        with RedisClient(unix_socket_path=str(server.socket), username="reader", password="secret") as client:
            seen = RedisReplicas(client, refresh=NOW, key=key)
            await until(lambda: seen.current() == ("10.0.0.1:50051",), SOON)
            with pytest.raises(NoPermissionError):
                client.hset(key, "another", "x")
        await process.die()
        await process.registration.close()
