"""What the Redis limiter promises beyond `Limiter`: one limit for all processes, and limits without a Redis."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

import pytest
import pytest_asyncio
import redis.asyncio
from structlog.testing import capture_logs

from artstore_grpc.ephemeral.memory import MemoryLimiter
from artstore_grpc.ephemeral.redis import RedisLimiter
from tests import servers
from tests.ephemeral.conftest import PATIENT, Clock
from tests.ephemeral.test_limiter import spend

SOON = timedelta(milliseconds=50)


@asynccontextmanager
async def limiter_on(url: str, **options: object) -> AsyncIterator[RedisLimiter]:
    settings = {"fallback": MemoryLimiter(), "timeout": PATIENT, "cool_down": SOON, **options}
    limiter = RedisLimiter(url, **settings)  # type: ignore[arg-type]
    try:
        yield limiter
    finally:
        await limiter.close()


@pytest_asyncio.fixture
async def client(redis_server_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.from_url(redis_server_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def own_redis() -> Iterator[servers.Redis]:
    """A Redis that the test may kill."""
    with servers.Redis() as server:
        yield server


async def until(holds: Callable[[], bool], limiter: RedisLimiter, seconds: float = 10) -> None:
    """Asks the limiter now and then until this holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await limiter.peek("until", 1)
        await asyncio.sleep(0.01)


# One limit for all


async def test_limiters_of_many_processes_keep_one_limit(redis_server_url: str, prefix: str) -> None:
    """Four on connections of their own, charging one key at once, admit exactly the limit."""
    async with AsyncExitStack() as stack:
        limiters = [await stack.enter_async_context(limiter_on(redis_server_url, prefix=prefix)) for _ in range(4)]
        admitted = await asyncio.gather(*(spend(limiter, "a", 200, 100) for limiter in limiters for _ in range(4)))
        assert sum(admitted) == 200
        assert all(limiter.available for limiter in limiters)


@pytest.mark.slow
async def test_processes_keep_one_limit(redis_server_url: str, prefix: str) -> None:
    """Four real processes that charge one key as fast as they can admit the limit, within a tenth more."""
    command = [sys.executable, str(Path(__file__).with_name("hammer.py")), redis_server_url, prefix, "2000", "5"]
    processes = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(4)]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    admitted = [int(output) for output, _ in outputs]
    assert 0.95 * 2_000 <= sum(admitted) <= 1.1 * 2_000


async def test_more_calls_than_connections_all_reach_redis(redis_server_url: str, prefix: str) -> None:
    """A crowd waits for a connection; it isn't taken for a failure."""
    async with limiter_on(redis_server_url, prefix=prefix) as limiter:
        waits = await asyncio.gather(*(limiter.charge("a", 300) for _ in range(500)))
        assert waits.count(None) == 300
        assert limiter.available


async def test_what_redis_admits_is_counted_here_too(redis_server_url: str, prefix: str) -> None:
    """The fallback knows the requests that it will have to go on from."""
    fallback = MemoryLimiter()
    async with limiter_on(redis_server_url, prefix=prefix, fallback=fallback) as limiter:
        assert await spend(limiter, "a", 10, 10) == 10
    assert await fallback.charge("a", 10) is not None


# What it leaves in Redis


async def test_a_window_is_one_key_that_expires(
    redis_server_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """Under the prefix, gone soon after its last second no longer counts; peeking makes none."""
    async with limiter_on(redis_server_url, prefix=prefix) as limiter:
        await limiter.peek("a", 5)
        assert await client.keys(f"{prefix}*") == []
        await spend(limiter, "a", 5, 9)
    assert await client.keys(f"{prefix}*") == [f"{prefix}a"]
    assert 60 < await client.ttl(f"{prefix}a") <= 62


async def test_a_window_in_use_doesnt_expire(redis_server_url: str, client: redis.asyncio.Redis, prefix: str) -> None:
    """Each second that opens renews its time."""
    clock = Clock()
    async with limiter_on(redis_server_url, prefix=prefix, clock=clock) as limiter:
        await limiter.charge("a", 5)
        await client.expire(f"{prefix}a", 5)
        clock.advance(1)
        await limiter.charge("a", 5)
    assert await client.ttl(f"{prefix}a") > 60


async def test_a_window_holds_only_what_counts(redis_server_url: str, client: redis.asyncio.Redis, prefix: str) -> None:
    """However long it is in use, its size is that of a minute, and its total the sum of its seconds."""
    clock = Clock()
    async with limiter_on(redis_server_url, prefix=prefix, clock=clock) as limiter:
        for number in range(200):
            await limiter.charge("a", 1_000)
            held = {field: int(value) for field, value in (await client.hgetall(f"{prefix}a")).items()}
            total, oldest, newest = (held.pop(field) for field in ("total", "oldest", "newest"))
            assert len(held) <= 61
            assert total == sum(held.values())
            assert [oldest, newest] == [min(map(int, held)), max(map(int, held))]
            clock.advance(1.7 if number % 10 else -7)  # servers' clocks are set back at times


async def test_a_flushed_script_is_loaded_again(
    redis_server_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """SCRIPT FLUSH, a failover or a restart costs a round trip, not a fallback."""
    async with limiter_on(redis_server_url, prefix=prefix) as limiter:
        assert await spend(limiter, "a", 5, 3) == 3
        await client.script_flush()
        assert await spend(limiter, "a", 5, 3) == 2
        assert limiter.available


@pytest.mark.parametrize("seconds", [0.5, 5, 59, 61, 3_600, 10_000_000])
async def test_a_clock_set_back_neither_opens_nor_locks(redis_server_url: str, prefix: str, seconds: float) -> None:
    """After a server's time went back the limit still holds, and within two minutes it is free again."""
    clock = Clock()
    clock.advance(10_000_000)
    async with limiter_on(redis_server_url, prefix=prefix, clock=clock) as limiter:
        assert await spend(limiter, "a", 5, 5) == 5
        clock.advance(-seconds)
        assert await spend(limiter, "a", 5, 5) == 0
        wait = await limiter.charge("a", 5)
        assert wait is not None
        assert wait <= timedelta(seconds=121)
        clock.advance(wait.total_seconds())
        assert await spend(limiter, "a", 5, 6) == 5


# Without Redis


async def test_a_redis_that_is_down_from_the_start_leaves_limits_in_place(tmp_path: Path) -> None:
    """No exception, no open door: this process counts alone."""
    async with limiter_on(f"unix://{tmp_path}/nobody.sock") as limiter:
        assert await spend(limiter, "a", 5, 20) == 5
        assert await limiter.peek("a", 5) is not None
        assert await limiter.peek("b", 5) is None
        assert not limiter.available


async def test_a_redis_killed_midway_leaves_limits_in_place(own_redis: servers.Redis) -> None:
    """The count goes on from what Redis had admitted here, and one line in the log says so."""
    async with limiter_on(own_redis.url(), cool_down=PATIENT) as limiter:
        assert await spend(limiter, "a", 10, 6) == 6
        own_redis.kill()
        with capture_logs() as logs:
            assert await spend(limiter, "a", 10, 20) == 4
        assert not limiter.available
    assert [line["event"] for line in logs] == ["limits fall back to this process"]


async def test_redis_is_used_again_when_it_is_back(own_redis: servers.Redis) -> None:
    """By itself, within a cool-down or two."""
    async with limiter_on(own_redis.url()) as limiter, limiter_on(own_redis.url()) as other:
        await asyncio.gather(*(limiter.charge("a", 100) for _ in range(40)))  # many idle connections
        own_redis.kill()
        assert await limiter.charge("a", 100) is None
        own_redis.start()
        with capture_logs() as logs:
            await until(lambda: limiter.available, limiter)
        assert [line["event"] for line in logs] == ["limits are shared again"]
        await asyncio.gather(*(limiter.charge("b", 50) for _ in range(40)))
        assert limiter.available
        assert await spend(other, "b", 50, 20) == 10


async def test_a_restart_that_loses_the_counts_doesnt_restart_them(own_redis: servers.Redis) -> None:
    """For a window after an outage what this process admitted before and in it still counts."""
    async with limiter_on(own_redis.url()) as limiter:
        assert await spend(limiter, "a", 10, 6) == 6
        own_redis.kill()
        assert await spend(limiter, "a", 10, 2) == 2
        own_redis.start()
        await until(lambda: limiter.available, limiter)
        assert await spend(limiter, "a", 10, 20) == 2
        assert limiter.available


# Servers that do harm


@asynccontextmanager
async def server_that(answer: bytes | None) -> AsyncIterator[tuple[str, list[float]]]:
    """Its URL, and when each connection came. Every command gets this answer; with None, none ever comes."""
    arrivals: list[float] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrivals.append(time.monotonic())
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                if answer:
                    writer.write(answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", arrivals
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await server.wait_closed()


async def test_a_silent_redis_costs_one_timeout_per_cool_down() -> None:
    """A server that accepts and never answers holds up one call, and the rest are answered at once."""
    timeout, cool_down = timedelta(seconds=0.1), timedelta(seconds=0.3)
    async with server_that(None) as (url, arrivals), limiter_on(url, timeout=timeout, cool_down=cool_down) as limiter:
        start, took = time.monotonic(), list[float]()
        while time.monotonic() < start + 1 or len(took) < 40:
            before = time.monotonic()
            await asyncio.gather(*(limiter.charge("a", 5) for _ in range(10 if took else 1)))
            took.append(time.monotonic() - before)
            await asyncio.sleep(0.001)
        elapsed = time.monotonic() - start
        assert took[0] > 0.09
        assert median(took) < 0.09, "a busy machine may hold up some, not most of them"
        assert 1 <= len(arrivals) <= 1 + elapsed / 0.3
        assert await limiter.charge("a", 5) is not None


async def test_a_crowd_waits_one_timeout_for_a_redis_that_falls_silent() -> None:
    """Calls that were under way together wait together, not one after another."""
    async with server_that(None) as (url, _), limiter_on(url, timeout=timedelta(seconds=0.2)) as limiter:
        before = time.monotonic()
        waits = await asyncio.gather(*(limiter.charge("a", 50) for _ in range(200)))
        assert time.monotonic() - before < 200 * 0.2 / 2
        assert waits.count(None) == 50


@asynccontextmanager
async def path_to(server: servers.Redis) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A URL by which to reach it, and what cuts the connections made so far: they stay open and carry nothing more."""
    pumps: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(server.socket)
        writers.extend((writer, there_writer))
        pumps.extend(map(asyncio.create_task, (pump(reader, there_writer), pump(there_reader, writer))))

    def cut() -> None:
        for task in pumps:
            task.cancel()

    path = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{path.sockets[0].getsockname()[1]}/0", cut
    finally:
        path.close()
        cut()
        await asyncio.gather(*pumps, return_exceptions=True)
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await path.wait_closed()


async def test_connections_that_died_silently_are_not_tried_one_by_one(own_redis: servers.Redis) -> None:
    """After a network forgot them all, one timeout is enough to be back on new ones."""
    async with path_to(own_redis) as (url, cut), limiter_on(url, timeout=timedelta(seconds=4)) as limiter:
        await asyncio.gather(*(limiter.charge("a", 100) for _ in range(10)))
        cut()
        assert await limiter.charge("a", 100) is None
        assert not limiter.available
        await until(lambda: limiter.available, limiter)
        await asyncio.gather(*(limiter.charge("b", 100) for _ in range(10)))
        assert limiter.available


@pytest.mark.parametrize(
    "answer",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-READONLY You can't write against a read only replica.\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=lambda answer: answer.split()[0].decode().strip("-"),
)
async def test_a_redis_that_refuses_leaves_limits_in_place(answer: bytes) -> None:
    """Whatever it says instead of an answer, this process counts alone and nothing is raised."""
    async with server_that(answer) as (url, _), limiter_on(url, timeout=timedelta(seconds=0.2)) as limiter:
        assert await spend(limiter, "a", 5, 10) == 5
        assert not limiter.available


async def test_a_foreign_value_under_a_key_leaves_the_limit_in_place(
    redis_server_url: str, client: redis.asyncio.Redis, prefix: str
) -> None:
    """A script that fails is a Redis that is down."""
    await client.set(f"{prefix}a", "not a hash", ex=60)
    async with limiter_on(redis_server_url, prefix=prefix) as limiter:
        assert await spend(limiter, "a", 5, 10) == 5


async def test_a_call_that_is_given_up_leaves_the_next_ones_in_order(redis_server_url: str, prefix: str) -> None:
    """A cancelled charge is no failure of Redis, and its answer goes to nobody else."""
    async with limiter_on(redis_server_url, prefix=prefix) as limiter:
        for number in range(30):
            call = asyncio.create_task(limiter.charge("full", 0))
            for _ in range(number):
                await asyncio.sleep(0)
            call.cancel()
            assert await limiter.charge(f"fresh {number}", 1) is None
            await asyncio.gather(call, return_exceptions=True)
        assert limiter.available


# Clusters


@pytest.mark.slow
async def test_a_cluster_keeps_limits_too() -> None:
    """Given a cluster's client: every key is counted, wherever its slot is."""
    with servers.ClusterNode() as node:
        async with redis.asyncio.RedisCluster(host="127.0.0.1", port=node.port) as cluster:
            limiter = RedisLimiter(cluster, fallback=MemoryLimiter(), timeout=PATIENT)
            for number in range(20):
                assert await spend(limiter, f"{number}", 5, 7) == 5
            await limiter.close()
            assert limiter.available
            assert len(await cluster.keys("artstore:limit:*", target_nodes="all")) == 20
