"""SIGTERM drains: readiness goes first, calls in flight finish, open watches don't hold it up, exit code 0."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.processes.service import ISSUER, Client, Installation, Service, code_of, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
GRACE_SECONDS = 60.0
DELAY_SECONDS = 3.0
QUICK_SECONDS = 10.0
"""Far from the grace, also on a busy machine."""
SLOW_COST = "16"
"""Four seconds of bcrypt, one after another: calls that are surely in flight when the delay ends."""
SOON_SECONDS = 30.0


@pytest.fixture
def service(tmp_path: Path, on_postgres: Installation) -> Iterator[Service]:
    slow = {
        "ARTSTORE_DRAIN_DELAY": str(DELAY_SECONDS),
        "ARTSTORE_DRAIN_GRACE": str(GRACE_SECONDS),
        "ARTSTORE_BCRYPT_COST": SLOW_COST,
        "ARTSTORE_BCRYPT_THREADS": "1",
    }
    with Service(tmp_path / "service", on_postgres.environment | slow) as made:
        yield made


@pytest.fixture
def client(service: Service, on_postgres: Installation) -> Iterator[Client]:
    with Client(service.grpc_address, on_postgres) as made:
        assert made.bearer
        yield made


@contextmanager
def ending(service: Service) -> Iterator[None]:
    """Ends the service before the threads that wait for it are waited for."""
    try:
        yield
    finally:
        service.kill()


def watch(client: Client, name: str, pool: ThreadPoolExecutor) -> tuple[list[int], Future[None]]:
    """An open Watch: the states it has told so far, and its end."""
    told: list[int] = []

    def read() -> None:
        answers = client.health.Watch(health_pb2.HealthCheckRequest(service=name))
        told.extend(answer.status for answer in answers)

    ended = pool.submit(read)
    until(lambda: told, SOON_SECONDS, "the first state")
    return told, ended


def create_by_http(service: Service, client: Client) -> int:
    """The status that the gateway answers to a create."""
    target = urlsplit(service.gateway_url)
    connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=60)
    try:
        body = json.dumps({"name": "by http", "role": "user"})
        headers = {"Content-Type": "application/json", "Authorization": client.bearer[0][1]}
        connection.request("POST", "/api/v1/service-accounts", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_stop_drains(service: Service, client: Client) -> None:
    """Watches tell that readiness is gone while calls are still taken, for DRAIN_DELAY; calls in flight at both doors
    finish; watches end; the process exits with 0 as soon as all that is done."""
    who = client.installation.administrator
    with ThreadPoolExecutor(5) as pool, ending(service):
        readiness, readiness_ended = watch(client, "readiness", pool)
        liveness, liveness_ended = watch(client, "liveness", pool)
        calls = pool.submit(client.create, "by grpc"), pool.submit(create_by_http, service, client)
        until(lambda: service.metrics()["artstore_bcrypt_queue_depth"] == 2, SOON_SECONDS, "two calls in flight")
        service.terminate()
        stopping = time.monotonic()
        until(lambda: readiness[-1] == NOT_SERVING, DELAY_SECONDS, "unready")
        assert liveness == [SERVING]
        assert client.issue(who.client_id, who.client_secret).access_token
        assert calls[0].result().client_secret
        assert calls[1].result() in (200, 201)
        answered = time.monotonic()
        assert service.wait(GRACE_SECONDS + 1) == 0
        ended = time.monotonic()
        for watching in (readiness_ended, liveness_ended):
            assert watching.exception(5) is None or isinstance(watching.exception(), grpc.RpcError)
    assert answered - stopping > DELAY_SECONDS, "the calls should have outlived the delay"
    assert ended - stopping < GRACE_SECONDS
    assert [line["event"] for line in service.lines()][-1] == "stopped"
    assert "Traceback" not in service.errors
    print(f"answered after {answered - stopping:.2f} s, ended after {ended - stopping:.2f} s")


def test_an_idle_stop_is_quick(service: Service, client: Client) -> None:
    """With nothing in flight but open watches and idle connections the stop takes the delay and little more."""
    with ThreadPoolExecutor(2) as pool, ending(service):
        watch(client, "", pool)
        watch(client, "unknown.Service", pool)
        service.terminate()
        stopping = time.monotonic()
        assert service.wait(GRACE_SECONDS + 1) == 0
    assert time.monotonic() - stopping < DELAY_SECONDS + QUICK_SECONDS


def test_a_stopped_service_takes_no_calls(service: Service, client: Client) -> None:
    """After the drain the port is closed."""
    service.terminate()
    assert service.wait() == 0
    who = client.installation.administrator
    assert code_of(lambda: client.issue(who.client_id, who.client_secret)) is grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def started_with(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a process that is started does about SIGHUP until it decides for itself."""
    before = signal.signal(signal.SIGHUP, request.param)
    yield
    signal.signal(signal.SIGHUP, before)


def hung_up(service: Service) -> None:
    assert service.process is not None
    service.process.send_signal(signal.SIGHUP)


@pytest.mark.parametrize("started_with", [signal.SIG_DFL], indirect=True)
@pytest.mark.usefixtures("started_with")
def test_a_hangup_drains_what_is_one_process(tmp_path: Path, on_postgres: Installation) -> None:
    """SIGHUP, for which several workers are replaced, cuts no call where there is one process: it drains."""
    with Service(tmp_path, on_postgres.environment | {"ARTSTORE_DRAIN_DELAY": "0"}) as service:
        hung_up(service)
        assert service.wait() == 0
        assert "draining" in {line["event"] for line in service.lines()}


@pytest.mark.parametrize("started_with", [signal.SIG_IGN], indirect=True)
@pytest.mark.usefixtures("started_with")
def test_a_hangup_is_nothing_under_nohup(tmp_path: Path, on_postgres: Installation) -> None:
    """Who started it had it ignored: it goes on, and drains on SIGTERM."""
    who = on_postgres.administrator
    with (
        Service(tmp_path, on_postgres.environment | {"ARTSTORE_DRAIN_DELAY": "0"}) as service,
        Client(service.grpc_address, on_postgres) as client,
    ):
        hung_up(service)
        for _ in range(3):
            assert client.issue(who.client_id, who.client_secret).access_token
        assert "draining" not in {line["event"] for line in service.lines()}
        service.terminate()
        assert service.wait() == 0


@pytest.mark.parametrize("door", ["grpc", "gateway", "metrics"])
def test_a_taken_port_is_refused(tmp_path: Path, on_postgres: Installation, door: str) -> None:
    """A second start on a port that the first one has ends at once, with its own exit code and one sentence that
    names the address; the first goes on."""
    with ExitStack() as stack:
        first = stack.enter_context(Service(tmp_path / "first", on_postgres.environment))
        address = str(first.logged("listening")[door])
        taken = {f"ARTSTORE_{door.upper()}_ADDRESS": address}
        second = Service(tmp_path / "second", on_postgres.environment | taken)
        stack.callback(second.kill)
        assert second.spawn().wait(60) == 8
        said = [line for line in second.said if "add_port.cc" not in line]  # gRPC's core has its own word
        assert len(said) == 1, second.errors
        assert said[0].startswith("Error: Can't ")
        assert address in said[0]
        with Client(first.grpc_address, on_postgres) as client:
            assert client.bearer


def test_an_issuer_is_the_same_after_a_restart(tmp_path: Path, on_postgres: Installation) -> None:
    """Tokens that were issued before a restart are taken after it."""
    with Service(tmp_path / "service", on_postgres.environment) as service:
        with Client(service.grpc_address, on_postgres) as before:
            bearer = before.bearer
        service.terminate()
        assert service.wait() == 0
        service.start()
        with Client(service.grpc_address, on_postgres, _bearer=bearer) as after:
            assert after.create("after").client_secret
            assert after.introspect(bearer[0][1].removeprefix("Bearer ")).iss == ISSUER
