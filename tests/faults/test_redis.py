"""Redis dies, forgets, stalls or refuses the password: limits hold in this process alone, and no call fails of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_client

from tests.faults.clients import Witness, witnessed
from tests.faults.proxy import Proxy
from tests.processes.service import Installation, until
from tests.servers import Redis

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOST, FOUND = "limits fall back to this process", "limits are shared again"
HEALED_SECONDS = 60.0
STALLED_SECONDS = 60.0
BOUND_SECONDS = 5.0
"""Far above the 100 ms that a call waits for Redis at most, and far below what a stalled server would take."""


@contextmanager
def limited(folder: Path, installation: Installation, redis: Redis, proxy: Proxy) -> Iterator[Witness]:
    installation.environment["ARTSTORE_REDIS_URL"] = f"redis://127.0.0.1:{proxy.port}/0"
    with witnessed(folder, installation) as witness:
        yield witness


def issues(witness: Witness) -> float:
    """Gets a token; the seconds it took."""
    started = time.monotonic()
    assert witness.client.issue(*witness.warm()).access_token
    return time.monotonic() - started


def said(witness: Witness, event: str) -> Callable[[], bool]:
    """Whether it was logged, once a call has given it a reason."""

    def asked() -> bool:
        issues(witness)
        time.sleep(0.7)  # the account's own limit is 100 a minute, and Redis is tried twice a second
        return any(line["event"] == event for line in witness.service.lines())

    return asked


def command(redis: Redis, *words: str) -> None:
    with redis_client.Redis(unix_socket_path=str(redis.socket)) as client:
        client.execute_command(*words)


def killed(redis: Redis, _: Proxy) -> None:
    redis.kill()


def stalled(_: Redis, proxy: Proxy) -> None:
    proxy.delay_seconds = STALLED_SECONDS


def refusing(redis: Redis, _: Proxy) -> None:
    command(redis, "CONFIG", "SET", "requirepass", "another")
    with redis_client.Redis(unix_socket_path=str(redis.socket), password="another") as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def back(redis: Redis, proxy: Proxy) -> None:
    proxy.delay_seconds = 0.0
    if not redis.running:
        redis.start()
    client = redis_client.Redis(unix_socket_path=str(redis.socket), password="another")
    with client, contextlib.suppress(redis_client.AuthenticationError):  # it has none
        client.execute_command("CONFIG", "SET", "requirepass", "")


@pytest.mark.parametrize("fault", [killed, stalled, refusing])
def test_a_redis_that_fails(
    tmp_path: Path, on_sqlite: Installation, redis: Redis, redis_proxy: Proxy, fault: Callable[[Redis, Proxy], None]
) -> None:
    """No call fails and none waits long; it is logged that limits are this process's own, and later that they are
    shared again, without a restart."""
    with limited(tmp_path, on_sqlite, redis, redis_proxy) as witness:
        assert not said(witness, LOST)()
        fault(redis, redis_proxy)
        until(said(witness, LOST), HEALED_SECONDS, "the fault was noticed")
        slowest = max(issues(witness) for _ in range(5))
        back(redis, redis_proxy)
        until(said(witness, FOUND), HEALED_SECONDS, "the return was noticed")
        witness.heals()
    assert slowest < BOUND_SECONDS
    print(f"{fault.__name__}: slowest call {slowest * 1000:.0f} ms")


def test_a_redis_that_forgets(tmp_path: Path, on_sqlite: Installation, redis: Redis, redis_proxy: Proxy) -> None:
    """After FLUSHALL and SCRIPT FLUSH calls go on at once, and the script is there again: nothing falls back."""
    with limited(tmp_path, on_sqlite, redis, redis_proxy) as witness:
        issues(witness)
        command(redis, "FLUSHALL")
        command(redis, "SCRIPT", "FLUSH")
        for _ in range(3):
            issues(witness)
        witness.heals()
        assert not any(line["event"] == LOST for line in witness.service.lines())
