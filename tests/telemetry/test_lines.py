"""Exactly one canonical line for each request, whatever it is, whichever door it comes in by."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from artstore_grpc.call import MAX_MESSAGE_BYTES
from artstore_grpc.gateway.app import build
from artstore_grpc.gateway.server import GatewayServer
from artstore_grpc.listeners import bind
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.telemetry.verbosity import MAX_SAMPLE
from tests.gateway.conftest import ANY, Recorder, client_of
from tests.installation import Installation, Log
from tests.processes.service import until

SERVICE = "artstore.identity.v1.TokenService"
ISSUE = f"{SERVICE}/IssueToken"
SECONDS = 10.0
GRACE = timedelta(seconds=1)
FIELDS = {"timestamp", "level", "event", "method", "door", "code", "duration_ms", "source", "request_id"}
HTTP_FIELDS = FIELDS | {"http_method", "route"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that tells everything."""
    with Installation(tmp_path_factory.mktemp("lines"), log_level="debug") as installation:
        yield installation


def calls(service: Installation) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in service.log.getvalue().splitlines()]
    return [line for line in lines if line["event"] == "call"]


def told(service: Installation, request_id: str) -> dict[str, Any]:
    """The one line of a request; it is there within moments of the answer."""
    until(lambda: [line for line in calls(service) if line["request_id"] == request_id], SECONDS, "a line")
    (line,) = [line for line in calls(service) if line["request_id"] == request_id]
    return line


HTTP = {
    "a token": ("POST", "/oauth2/token", "/oauth2/token", 200, ISSUE, "OK", ""),
    "wrong parameters": (
        "POST",
        "/oauth2/token?x=y",
        "/oauth2/token",
        400,
        "",
        "INVALID_ARGUMENT",
        "PARAMETERS_IN_URL",
    ),
    "no such path": ("GET", "/nowhere/artstore_secret", "other", 404, "", "NOT_FOUND", "NO_SUCH_ROUTE"),
    "a malformed path": ("GET", "/%zz", "other", 400, "", "INVALID_ARGUMENT", "MALFORMED_PATH"),
    "no such method": ("PUT", "/docs", "/docs", 405, "", "UNIMPLEMENTED", "METHOD_NOT_ALLOWED"),
    "a strange method": ("PROPFIND", "/docs", "/docs", 405, "", "UNIMPLEMENTED", "METHOD_NOT_ALLOWED"),
    "options": ("OPTIONS", "/docs", "/docs", 204, "", "OK", ""),
    "the documentation": ("GET", "/docs", "/docs", 200, "", "OK", ""),
    "the document": ("GET", "/openapi.json", "/openapi.json", 200, "", "OK", ""),
    "its head": ("HEAD", "/openapi.json", "/openapi.json", 200, "", "OK", ""),
    "liveness": ("GET", "/health/live", "/health/live", 200, "", "OK", ""),
    "readiness": ("GET", "/health/ready", "/health/ready", 200, "", "OK", ""),
    "an account": (
        "GET",
        "/api/v1/service-accounts/some-id",
        "/api/v1/service-accounts/{id}",
        401,
        "artstore.identity.v1.ServiceAccountService/GetServiceAccount",
        "UNAUTHENTICATED",
        "MISSING_TOKEN",
    ),
    "keys": ("GET", "/.well-known/jwks.json", "/.well-known/jwks.json", 200, f"{SERVICE}/GetJsonWebKeySet", "OK", ""),
}


@pytest.mark.parametrize("name", HTTP)
def test_http(service: Installation, name: str) -> None:
    """Whether it reaches the pipeline or not: one line with HTTP's view and the call's. Probes are told at `debug`."""
    verb, path, route, status, method, code, reason = HTTP[name]
    request_id, who = uuid4().hex, service.administrator
    answer = httpx.request(
        verb,
        service.url + path,
        headers={"x-request-id": request_id},
        data={"grant_type": "client_credentials"} if verb == "POST" else None,
        auth=(who.client_id, who.client_secret) if verb == "POST" else None,
    )
    assert answer.status_code == status
    line = told(service, request_id)
    assert line.keys() >= HTTP_FIELDS
    assert (line["door"], line["route"], line["status"], line["method"]) == ("http", route, status, method)
    assert (line["code"], line.get("reason", "")) == (code, reason)
    assert line["http_method"] == (verb if verb != "PROPFIND" else "other")
    assert line["level"] == ("debug" if path.startswith("/health/") else "info")
    assert "artstore_secret" not in service.log.getvalue()
    if code == "OK" and method == ISSUE:
        assert line["client_id"] == who.client_id
        assert line["jti"]


def test_a_body_too_large(service: Installation) -> None:
    """Declared, or found out: 413 has its line."""
    body = b"x" * (MAX_MESSAGE_BYTES + 1)
    for content in (body, iter([body])):
        request_id = uuid4().hex
        answer = httpx.post(f"{service.url}/oauth2/token", headers={"x-request-id": request_id}, content=content)
        line = told(service, request_id)
        assert answer.status_code == line["status"] == 413
        assert (line["route"], line["reason"]) == ("/oauth2/token", "BODY_TOO_LARGE")


def raw(service: Installation, data: bytes) -> bytes:
    """What the gateway answers to bytes."""
    address = service.started.gateway_address
    assert address is not None
    with socket.create_connection((address.host, address.port), timeout=SECONDS) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


@pytest.mark.parametrize(
    ("data", "status", "reason"),
    [
        (b"nonsense\r\n\r\n", 400, "MALFORMED_HTTP"),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", 431, "HEADERS_TOO_LARGE"),
        (
            b"POST /oauth2/token HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            400,
            "MALFORMED_HTTP",
        ),
    ],
)
def test_what_never_becomes_a_request(service: Installation, data: bytes, status: int, reason: str) -> None:
    """Refused by the connection itself, in the middle of a body too: one line of it."""
    before = len(calls(service))
    answer = raw(service, data)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    (line,) = until(lambda: calls(service)[before:], SECONDS, "a line")
    assert (line["status"], line["reason"], line["route"], line["source"]) == (status, reason, "other", "127.0.0.1")


def test_who_goes_away(service: Installation) -> None:
    """A caller that closes before its request is whole has a line too, of no status: nobody was answered."""
    request_id = uuid4().hex
    address = service.started.gateway_address
    assert address is not None
    with socket.create_connection((address.host, address.port)) as connection:
        head = f"POST /oauth2/token HTTP/1.1\r\nhost: x\r\nx-request-id: {request_id}\r\ncontent-length: 9\r\n\r\n"
        connection.sendall(head.encode())
    line = told(service, request_id)
    assert (line["code"], line["reason"]) == ("CANCELLED", "CLIENT_GONE")
    assert "status" not in line


def health(service: Installation, metadata: Any) -> None:
    health_pb2_grpc.HealthStub(service.channel).Check(health_pb2.HealthCheckRequest(), metadata=metadata)


def unknown_health(service: Installation, metadata: Any) -> None:
    request = health_pb2.HealthCheckRequest(service="nobody")
    with pytest.raises(grpc.RpcError):
        health_pb2_grpc.HealthStub(service.channel).Check(request, metadata=metadata)


def watched(service: Installation, metadata: Any) -> None:
    watch = health_pb2_grpc.HealthStub(service.channel).Watch(health_pb2.HealthCheckRequest(), metadata=metadata)
    next(watch)
    watch.cancel()


def reflected(service: Installation, metadata: Any) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    assert list(stub.ServerReflectionInfo(asked, metadata=metadata))


def undecodable(service: Installation, metadata: Any) -> None:
    with pytest.raises(grpc.RpcError):
        service.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff", metadata=metadata)


def issued(service: Installation, metadata: Any) -> None:
    who = service.administrator
    request = tokens_pb.IssueTokenRequest(
        grant_type="client_credentials", client_id=who.client_id, client_secret=who.client_secret
    )
    service.tokens.IssueToken(request, metadata=metadata)


def refused(service: Installation, metadata: Any) -> None:
    with pytest.raises(grpc.RpcError):
        service.tokens.IssueToken(tokens_pb.IssueTokenRequest(), metadata=metadata)


def no_method(service: Installation, metadata: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        service.channel.unary_unary(f"/{SERVICE}/Artstore_secret")(b"", metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def feed(service: Installation, metadata: Any) -> None:
    bearer = service.bearer()
    stream = service.tokens.WatchTrust(tokens_pb.WatchTrustRequest(), metadata=(*metadata, *bearer))
    next(stream)
    stream.cancel()


CHECK = "grpc.health.v1.Health/Check"
RPC: dict[str, tuple[Callable[[Installation, Any], None], str, str, str]] = {
    "a token": (issued, ISSUE, "OK", "info"),
    "a refusal": (refused, ISSUE, "INVALID_ARGUMENT", "info"),
    "a stream": (feed, f"{SERVICE}/WatchTrust", "OK", "info"),
    "no such method": (no_method, "unknown", "UNIMPLEMENTED", "info"),
    "health": (health, CHECK, "OK", "debug"),
    "health of nobody": (unknown_health, CHECK, "NOT_FOUND", "debug"),
    "undecodable": (undecodable, CHECK, "INVALID_ARGUMENT", "debug"),
    "a watch": (watched, "grpc.health.v1.Health/Watch", "CANCELLED", "debug"),
    "reflection": (reflected, "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "OK", "debug"),
}


@pytest.mark.parametrize("name", RPC)
def test_rpc(service: Installation, name: str) -> None:
    """Ours, gRPC's own, and those that there aren't: one line each."""
    call, method, code, level = RPC[name]
    request_id = uuid4().hex
    call(service, (("x-request-id", request_id),))
    line = told(service, request_id)
    assert line.keys() >= FIELDS
    assert (line["door"], line["method"], line["code"], line["level"]) == ("grpc", method, code, level)
    assert "Artstore_secret" not in service.log.getvalue()


def test_probes_are_not_told_at_info(tmp_path: Path) -> None:
    """They come each second; what else comes is told."""
    with Installation(tmp_path) as service:
        for call in (health, reflected, issued):
            call(service, ())
        httpx.get(f"{service.url}/health/ready")
        assert [line["method"] for line in calls(service)] == [ISSUE]


def test_a_trace_is_told_by_its_id(service: Installation) -> None:
    """The caller's, by both doors; one that is malformed is none, and none is made while traces are off."""
    trace_id = uuid4().hex
    for traceparent, expected in ((f"00-{trace_id}-{'1' * 16}-01", trace_id), (f"00-{'0' * 32}-{'1' * 16}-01", None)):
        request_id = uuid4().hex
        issued(service, (("x-request-id", request_id), ("traceparent", traceparent)))
        assert told(service, request_id).get("trace_id") == expected
        request_id = uuid4().hex
        httpx.get(f"{service.url}/docs", headers={"x-request-id": request_id, "traceparent": traceparent})
        assert told(service, request_id).get("trace_id") == expected


async def test_an_unready_probe_is_a_failure() -> None:
    """So that sampling never leaves it out; it is told at `debug`, as every probe."""

    async def unready() -> bool:
        return False

    log = Log()
    logger = configured("debug", log, sample=MAX_SAMPLE)
    server = GatewayServer(build(Recorder(), ready=unready, trusted_proxies=(), logger=logger), bind(ANY), GRACE)
    await server.start()
    async with client_of(server) as client:
        assert (await client.get("/health/ready")).status_code == 503
    await server.stop()
    (line,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (line["level"], line["status"], line["code"], line["reason"]) == ("debug", 503, "UNAVAILABLE", "UNREADY")
