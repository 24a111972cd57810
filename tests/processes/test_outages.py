"""The database goes away and comes back under a running service (docs/architecture.md, When something is gone)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from artstore_grpc.store.schema import upgrade
from tests.processes.service import Client, Installation, Service, code_of, install, until
from tests.servers import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WINDOW_SECONDS = 15
NOTICED_SECONDS = 10.0
"""A poll's interval and its time limit, and some on a busy machine."""
HEALED_SECONDS = 30.0
AT_ONCE_SECONDS = 0.5
BEFORE_NOTICED_SECONDS = 8.0
TOKENS = "artstore.identity.v1.TokenService"
ACCOUNTS = "artstore.identity.v1.ServiceAccountService"
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def database() -> Iterator[Postgres]:
    """A PostgreSQL of this test's own, as durable as one in production."""
    with Postgres(fsync=True) as server:
        asyncio.run(upgrade(server.url()))
        yield server


@pytest.fixture
def window_seconds() -> int:
    """The outage window; a test that wants another one says so by a parameter."""
    return WINDOW_SECONDS


@pytest.fixture
def installation(database: Postgres, window_seconds: int) -> Installation:
    made = install(database.url())
    made.environment["ARTSTORE_OUTAGE_WINDOW"] = str(window_seconds)
    return made


@dataclass
class Watched:
    """A service with an account that has had a token, and one that the service has not met."""

    client: Client
    service: Service
    warm: tuple[str, str]
    cold: tuple[str, str]
    cold_id: str
    token: str

    @property
    def states(self) -> tuple[bool, bool, bool, bool]:
        """What probes are told: liveness, readiness, TokenService, ServiceAccountService."""
        live, ready, tokens, accounts = map(self.client.serving, ("liveness", "readiness", TOKENS, ACCOUNTS))
        return live, ready, tokens, accounts

    def attempts(self) -> list[tuple[grpc.StatusCode, float]]:
        """How an introspection and two admin writes end, each with the seconds it took."""
        calls = (
            lambda: self.client.introspect(self.token),
            lambda: self.client.create(f"account {uuid4()}"),
            lambda: self.client.suspend(self.cold_id),
        )
        ends = []
        for call in calls:
            started = time.monotonic()
            ends.append((code_of(call), time.monotonic() - started))
        return ends


@pytest.fixture
def watched(tmp_path: Path, installation: Installation) -> Iterator[Watched]:
    with Service(tmp_path / "service", installation.environment) as service, ExitStack() as stack:
        client = stack.enter_context(Client(service.grpc_address, installation))
        warm, cold = client.create("warm"), client.create("cold")
        known = (warm.service_account.client_id, warm.client_secret)
        token = client.issue(*known).access_token
        unknown = (cold.service_account.client_id, cold.client_secret)
        yield Watched(client, service, known, unknown, cold.service_account.id, token)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def test_tokens_go_on_until_the_window_ends(database: Postgres, watched: Watched, pool: ThreadPoolExecutor) -> None:
    """A killed database: warm accounts get short, flagged tokens without a gap, the rest is UNAVAILABLE at once; when
    the window ends so do tokens; when the database is back everything is, without a restart."""
    client = watched.client
    assert watched.states == (True, True, True, True)
    killed = time.monotonic()
    crash = pool.submit(database.kill)  # ends when the last backend is gone: the service goes on meanwhile
    before = watched.attempts()
    assert max(seconds for _, seconds in before) < BEFORE_NOTICED_SECONDS
    until(lambda: client.issue(*watched.warm).expires_in <= 300, NOTICED_SECONDS, "short tokens")
    noticed = time.monotonic() - killed
    assert watched.states == (True, True, True, False)
    rounds = [watched.attempts() for _ in range(3)]
    assert {code for each in rounds for code, _ in each} == {UNAVAILABLE}
    refused = min(max(seconds for _, seconds in each) for each in rounds)  # the best: the machine may be busy
    assert refused < AT_ONCE_SECONDS
    assert code_of(lambda: client.issue(*watched.cold)) is UNAVAILABLE
    metrics = watched.service.metrics()
    assert (metrics["artstore_degraded"], metrics["artstore_database_up"]) == (1, 0)
    assert metrics["artstore_tokens_issued_total[('mode', 'outage')]"] >= 1
    assert any(line.get("outage") for line in watched.service.lines())

    until(lambda: not client.serving("readiness"), WINDOW_SECONDS + 1, "unready after the window")
    ended = time.monotonic() - killed
    assert ended > WINDOW_SECONDS
    assert watched.states == (True, False, False, False)
    assert code_of(lambda: client.issue(*watched.warm)) is UNAVAILABLE

    crash.result()
    database.start()
    back = time.monotonic()
    until(lambda: watched.states == (True, True, True, True), HEALED_SECONDS, "healed")
    healed = time.monotonic() - back
    assert client.issue(*watched.warm).expires_in == 1800
    assert client.issue(*watched.cold).access_token
    assert client.introspect(watched.token).active
    assert client.create("after").client_secret
    assert "job failed" not in watched.service.errors
    print(f"noticed {noticed:.2f} s, refused in {refused * 1000:.0f} ms, ended {ended:.2f} s, healed {healed:.2f} s")


@pytest.mark.parametrize("window_seconds", [60])
def test_a_short_outage_is_survived_without_a_refusal(database: Postgres, watched: Watched) -> None:
    """A database that restarts within the window: no warm account is refused a token, and readiness never goes."""
    client = watched.client
    database.kill()
    until(lambda: client.issue(*watched.warm).expires_in <= 300, NOTICED_SECONDS, "the outage noticed")
    assert client.serving("readiness")
    database.start()

    def healed() -> bool:
        assert client.serving("readiness")
        return client.issue(*watched.warm).expires_in == 1800

    until(healed, HEALED_SECONDS, "healed")
    assert client.create("after").client_secret


def test_a_start_without_a_database_waits(tmp_path: Path, database: Postgres, installation: Installation) -> None:
    """It listens, is alive and unready, refuses tokens; and becomes ready once the database is there."""
    who = installation.administrator
    database.stop()
    service = Service(tmp_path / "service", installation.environment)
    try:
        service.spawn().logged("waiting for the database")
        with Client(service.grpc_address, installation) as client:
            assert client.serving("liveness")
            assert not client.serving("readiness")
            assert not client.serving(TOKENS)
            assert code_of(lambda: client.issue(who.client_id, who.client_secret)) is UNAVAILABLE
            assert code_of(client.key_ids) is UNAVAILABLE
            database.start()
            until(lambda: client.serving("readiness"), HEALED_SECONDS, "ready")
            assert client.issue(who.client_id, who.client_secret).access_token
    finally:
        service.kill()


def test_a_waiting_start_can_be_stopped(tmp_path: Path, database: Postgres, installation: Installation) -> None:
    """SIGTERM ends a start that waits for its database, with exit code 0."""
    database.stop()
    service = Service(tmp_path / "service", installation.environment)
    try:
        service.spawn().logged("waiting for the database")
        service.terminate()
        assert service.wait() == 0
    finally:
        service.kill()
