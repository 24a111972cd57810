"""One change, asked of a gateway that runs alone: its two log lines, its ledger row and its trace name each other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.processes.service import COMMAND, Client, Installation, Service, install, until
from tests.telemetry.receiver import SECONDS, Receiver

pytestmark = pytest.mark.slow

ACCOUNTS = "artstore.identity.v1.ServiceAccountService"
TOKENS = "artstore.identity.v1.TokenService"
CALLER = "1234567890abcdef"
SERVER, GATEWAY = "artstore-grpc", "artstore-grpc-gateway"


@dataclass
class Stage:
    """A service and, before it, a gateway, each a process; both are traced."""

    service: Service
    gateway: Service
    installation: Installation
    receiver: Receiver

    def ask(self, method: str, path: str, **more: Any) -> tuple[httpx.Response, str]:
        """A request in a new trace, and that trace's id."""
        trace_id = uuid4().hex
        headers = {
            "traceparent": f"00-{trace_id}-{CALLER}-01",
            "tracestate": "vendor=opaque",
            **more.pop("headers", {}),
        }
        answer = httpx.request(method, self.gateway.gateway_url + path, headers=headers, timeout=30, **more)
        return answer, trace_id

    def line(self, of: Service, request_id: str) -> dict[str, Any]:
        """The one line of a request in a process's log."""
        found = until(lambda: [line for line in of.lines() if line.get("request_id") == request_id], SECONDS, "a line")
        assert len(found) == 1
        line: dict[str, Any] = found[0]
        return line


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    from artstore_grpc.store.schema import upgrade

    folder = tmp_path_factory.mktemp("correlation")
    url = f"sqlite:///{folder / 'identity.db'}"
    asyncio.run(upgrade(url))
    installation = install(url)
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())
        traced = {"ARTSTORE_TRACES_ENDPOINT": receiver.endpoint, "ARTSTORE_TRUSTED_PROXIES": "127.0.0.0/8"}
        service = stack.enter_context(Service(folder / "service", installation.environment | traced))
        command = (*COMMAND, "gateway", "--target", service.grpc_address)
        gateway = Service(folder / "gateway", traced, command)
        stack.callback(gateway.kill)
        gateway.spawn().logged("listening")
        yield Stage(service, gateway, installation, receiver)


def test_everything_that_one_change_left(stage: Stage) -> None:
    """The caller's trace goes through both processes, span below span; the id that the caller was answered finds both
    lines and the row, and each has the trace's id."""
    with Client(stage.service.grpc_address, stage.installation) as client:
        bearer = client.bearer[0][1]
    answer, trace_id = stage.ask(
        "POST",
        "/api/v1/service-accounts",
        headers={"authorization": bearer},
        json={"name": f"correlated {uuid4().hex[:8]}", "role": "user"},
    )
    assert answer.status_code == 200, answer.text
    request_id = answer.headers["x-request-id"]

    http, call = f"{GATEWAY}: POST /api/v1/service-accounts", f"{ACCOUNTS}/CreateServiceAccount"
    parts = [f"{SERVER}: {name}" for name in (call, "bcrypt wait", "bcrypt hash", "transaction", "INSERT ledger")]
    spans = stage.receiver.complete(trace_id, http, f"{GATEWAY}: {call}", *parts)
    request, asked, served = spans[http], spans[f"{GATEWAY}: {call}"], spans[f"{SERVER}: {call}"]
    assert [request.parent, asked.parent, served.parent] == [CALLER, request.id, asked.id]
    assert [request.kind, asked.kind, served.kind] == ["SERVER", "CLIENT", "SERVER"]
    assert spans[f"{SERVER}: INSERT ledger"].parent == spans[f"{SERVER}: transaction"].id
    assert spans[f"{SERVER}: bcrypt hash"].parent == served.id
    assert request.attributes["artstore.request_id"] == served.attributes["artstore.request_id"] == request_id
    assert request.attributes["http.route"] == "/api/v1/service-accounts"

    for process, door in ((stage.gateway, "http"), (stage.service, "grpc")):
        line = stage.line(process, request_id)
        assert (line["trace_id"], line["door"], line["method"], line["code"]) == (trace_id, door, call, "OK")
    rows = httpx.get(
        f"{stage.gateway.gateway_url}/api/v1/audit-events",
        params={"filter": "kind = account.created", "page_size": 1000},
        headers={"authorization": bearer},
    ).json()["audit_events"]
    (detail,) = [detail for row in rows if (detail := json.loads(row["detail"])).get("request_id") == request_id]
    assert detail["trace_id"] == trace_id
    assert answer.json()["service_account"]["client_id"] == detail["client_id"]


def test_a_call_without_a_trace_is_decided_once(stage: Stage) -> None:
    """The gateway's choice not to record is the server's too, and both lines have the same id of a trace."""
    request_id = uuid4().hex
    httpx.get(f"{stage.gateway.gateway_url}/.well-known/jwks.json", headers={"x-request-id": request_id})
    lines = [stage.line(process, request_id) for process in (stage.gateway, stage.service)]
    assert lines[0]["trace_id"] == lines[1]["trace_id"]


def test_what_waits_is_sent_at_the_stop(stage: Stage) -> None:
    """A call just before SIGTERM is in its trace, from both processes; the last test, since they end."""
    _, trace_id = stage.ask("GET", "/.well-known/jwks.json")
    for process in (stage.gateway, stage.service):
        process.terminate()
        assert process.wait() == 0
    names = {(span.service, span.name) for span in stage.receiver.of(trace_id)}
    assert {(GATEWAY, "GET /.well-known/jwks.json"), (SERVER, f"{TOKENS}/GetJsonWebKeySet")} <= names
