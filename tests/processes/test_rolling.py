"""A rolling restart under a steady load: behind a plain TCP balancer, and by the registrations in Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from artstore.identity.redis_replicas import RedisReplicas

from tests.processes.balancer import Balancer, free_ports
from tests.processes.service import Client, Installation, Service, issued, together, until
from tests.processes.steady import NEVER_AGAIN, SteadyLoad, bare, sdk, unlimited

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPLICAS = 3
RATE, BURST = 72.0, 24
"""Calls a second, of all callers, and how many of them at once: far below what two busy cores do, so that a failure is
no overload; and many in flight whenever something happens."""
CONNECTIONS = 4
"""Of each kind of callers."""
DELAY, NO_DELAY, KILLED = "SIGTERM, 2 s of drain delay", "SIGTERM, no drain delay", "SIGKILL"


class Fleet:
    """Replicas at ports that stay theirs, and an account that gets tokens."""

    def __init__(self, folder: Path, installation: Installation, redis_url: str, how: str, stack: ExitStack) -> None:
        self.how = how
        self.ports = free_ports(REPLICAS)
        delay = {"ARTSTORE_DRAIN_DELAY": "2" if how == DELAY else "0"}
        shared = installation.environment | delay | {"ARTSTORE_REDIS_URL": redis_url}
        self.services = [
            Service(folder / str(port), shared | {"ARTSTORE_GRPC_ADDRESS": f"127.0.0.1:{port}"}) for port in self.ports
        ]
        stack.enter_context(together(self.services))
        with Client(self.services[0].grpc_address, installation) as client:
            self.account = unlimited(client)

    def restart_each(self) -> None:
        """As a deployment does it: one after the other, the next when the one before is ready."""
        for service in self.services:
            if self.how == KILLED:
                service.kill()
            else:
                service.terminate()
                assert service.wait(60) == 0
            service.start()


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path, on_postgres: Installation, redis_url: str) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, on_postgres, redis_url, getattr(request, "param", DELAY), stack)


@pytest.mark.parametrize("fleet", [DELAY, pytest.param(NO_DELAY, marks=pytest.mark.drill), KILLED], indirect=True)
def test_behind_a_tcp_balancer(fleet: Fleet) -> None:
    """Three replicas restart one after the other under a steady load: with the SDK's retries no IssueToken fails,
    however they are ended; how many do without them is printed."""
    with Balancer(fleet.ports) as balancer:
        target = balancer.address
        retrying = sdk(CONNECTIONS, target=target, **fleet.account)
        once = sdk(CONNECTIONS, NEVER_AGAIN, target=target, **fleet.account)
        alone = bare(CONNECTIONS, target, **fleet.account)
        with SteadyLoad(RATE, retrying, once, alone, burst=BURST):
            fleet.restart_each()
            until(lambda: retrying.outcomes.total() > 100, 60, "the load goes on")  # where replicas start fast too
    print(f"{fleet.how}: with the SDK's retries {retrying}")
    print(f"with max_attempts=1 {once}")
    print(f"by gRPC without any retry {alone}")
    print(f"{balancer.accepted} connections, {balancer.passed_over} of them passed over a port that was closed")
    assert retrying.failed == 0, retrying
    assert balancer.accepted > 3 * CONNECTIONS, "nobody had to connect anew"


@pytest.mark.drill
def test_by_redis(fleet: Fleet, redis_url: str) -> None:
    """The same by the registrations in Redis: no IssueToken fails, and each replica has its share again at the end."""
    seen = RedisReplicas(redis_url)
    retrying = sdk(1, discovery=seen, **fleet.account)
    once = sdk(1, NEVER_AGAIN, discovery=seen, **fleet.account)
    with SteadyLoad(RATE, retrying, once, burst=BURST):
        fleet.restart_each()
        until(lambda: len(seen.current()) == REPLICAS, 10, "all are registered again")
        before = [issued(service) for service in fleet.services]
        until(lambda: sum(map(issued, fleet.services)) - sum(before) > 150, 60, "the load goes on")
        shares = [issued(service) - began for service, began in zip(fleet.services, before, strict=True)]
    print(f"with the SDK's retries {retrying}")
    print(f"with max_attempts=1 {once}")
    print(f"shares at the end {shares}")
    assert retrying.failed == 0, retrying
    assert min(shares) > sum(shares) / REPLICAS / 2
