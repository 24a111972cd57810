"""Connections have an age, at both doors: what is under way when it comes goes on, and the next call goes elsewhere."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import psutil
import pytest
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from tests.processes.service import Client, Installation, Service, issued, until
from tests.processes.switch import Switch
from tests.processes.workers import Load, callers_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

AGE_SECONDS = 1.0
MOVES = 4
PATIENCE_SECONDS = 60.0


@pytest.fixture
def service(tmp_path: Path, on_sqlite: Installation) -> Iterator[Service]:
    """Two seconds of bcrypt, which outlive a connection."""
    young = {"ARTSTORE_MAX_CONNECTION_AGE": str(AGE_SECONDS), "ARTSTORE_BCRYPT_COST": "15"}
    with Service(tmp_path / "service", on_sqlite.environment | young) as made:
        yield made


def ports_to(address: str) -> set[int]:
    """Our ends of the connections to an address."""
    port = int(address.rpartition(":")[2])
    return {
        each.laddr.port
        for each in psutil.Process().net_connections("tcp")
        if each.raddr and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
    }


def test_callers_move_and_no_call_fails(service: Service, on_sqlite: Installation) -> None:
    """Callers without a retry policy connect anew several times, and not one of their calls fails."""
    seen: set[int] = set()
    with Load(service.grpc_address, on_sqlite, 3, retries=False) as load:

        def moved() -> bool:
            seen.update(ports_to(service.grpc_address))
            return len(seen) >= 3 * MOVES

        until(moved, PATIENCE_SECONDS, "new connections")
    print(f"{load.succeeded} calls over {len(seen)} connections of 3 callers; failed: {dict(load.failed)}")
    assert not load.failed


def test_what_is_under_way_goes_on(service: Service, on_sqlite: Installation) -> None:
    """A call that takes longer than the connection lives succeeds, and a trust feed goes on long after."""
    with ExitStack() as stack:
        client = stack.enter_context(Client(service.grpc_address, on_sqlite))
        assert client.bearer
        pool = stack.enter_context(ThreadPoolExecutor(1))
        feed = client.tokens.WatchTrust(tokens_pb.WatchTrustRequest(), metadata=client.bearer)
        stack.callback(feed.cancel)
        before = ports_to(service.grpc_address)
        slow = pool.submit(client.create, "slow")
        first, heard = time.monotonic(), 0
        while time.monotonic() < first + 4 * AGE_SECONDS:
            assert next(feed).WhichOneof("content") is not None
            heard += 1
        assert heard >= 3
        assert slow.result().client_secret
        who = on_sqlite.administrator

        def elsewhere() -> bool:
            """Sees the new connection, unless that too was old by the time that somebody looked."""
            assert client.issue(who.client_id, who.client_secret).access_token
            return bool(ports_to(service.grpc_address) - before)

        until(elsewhere, PATIENCE_SECONDS, "the next call comes over another connection")


def test_an_old_http_connection_closes_with_an_answer(service: Service, on_sqlite: Installation) -> None:
    """Over HTTP the answer to the first request past the age says that the connection closes; those before it don't,
    and every request is answered."""
    target, who = urlsplit(service.gateway_url), on_sqlite.administrator
    body = urlencode(
        {"grant_type": "client_credentials", "client_id": who.client_id, "client_secret": who.client_secret}
    )
    connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=30)
    opened = time.monotonic()
    connection.connect()
    while True:
        connection.request("POST", "/oauth2/token", body, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["access_token"]
        age = time.monotonic() - opened
        if answer.getheader("Connection") == "close":
            break
        assert age < PATIENCE_SECONDS
    assert age >= 0.9 * AGE_SECONDS
    assert connection.sock is None  # closed, as both sides had said


def test_a_new_replica_gets_its_part(service: Service, tmp_path: Path, on_sqlite: Installation) -> None:
    """Once a balancer sends new connections to a new replica, it soon serves callers that had long been connected to
    the old one, and none of their calls fails."""
    age = {"ARTSTORE_MAX_CONNECTION_AGE": str(AGE_SECONDS)}
    with ExitStack() as stack:
        new = stack.enter_context(Service(tmp_path / "new", on_sqlite.environment | age))
        switch = stack.enter_context(Switch(service.grpc_address))
        load = stack.enter_context(Load(switch.address, on_sqlite, 3, retries=False))
        assert issued(new) == 0
        switch.target = new.grpc_address
        until(lambda: issued(new) > 0, PATIENCE_SECONDS, "the new one serves")
        left = partial(callers_of, service.pid, service.grpc_address)
        until(lambda: not left(), PATIENCE_SECONDS, "the old one's connections have ended")
        load.goes_on()
        assert not load.failed
