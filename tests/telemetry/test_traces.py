"""Traces: who is recorded, what a span says and what it never says, and that a receiver can't harm a call."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import grpc
import httpx
import pytest
import trustme
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1.token_service_pb2_grpc import TokenServiceStub

from artstore_grpc.app import Share, Started, serve
from artstore_grpc.call import Call
from artstore_grpc.errors import Internal, InvalidClient
from artstore_grpc.settings import Settings
from artstore_grpc.spans import CURRENT, span
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.telemetry.metrics import Metrics
from artstore_grpc.telemetry.traces import FORCED_A_SECOND, MAX_QUEUE, SEND_TIMEOUT, Traces
from tests.hostile.test_canaries import Plot, Talkative, assert_silent, use_everything
from tests.installation import ANY, Installation, Log
from tests.telemetry.receiver import Receiver
from tests.transport.machines import Files

TOKENS = "artstore.identity.v1.TokenService"
ACCOUNTS = "artstore.identity.v1.ServiceAccountService"
SERVER = "artstore-grpc"
CALLER = "1234567890abcdef"


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Installation]:
    """An installation that traces what its callers have it trace, and nothing else."""
    folder = tmp_path_factory.mktemp("traces")
    with Installation(folder, traces_endpoint=receiver.endpoint, traces_sample=0.0) as installation:
        yield installation


def parented() -> tuple[str, tuple[tuple[str, str], ...]]:
    """A new trace that is recorded: its id, and the metadata of a call of it."""
    trace_id = uuid4().hex
    return trace_id, (("traceparent", f"00-{trace_id}-{CALLER}-01"),)


def request(service: Installation, secret: str = "") -> tokens_pb.IssueTokenRequest:
    who = service.administrator
    return tokens_pb.IssueTokenRequest(
        grant_type="client_credentials", client_id=who.client_id, client_secret=secret or who.client_secret
    )


def test_a_call_by_grpc(service: Installation, receiver: Receiver) -> None:
    """The caller's span is the parent of the call's, and this of its parts: bcrypt's wait and work, the statements of
    the first use of a secret, the signature."""
    account = service.account()
    trace_id, metadata = parented()
    issue = tokens_pb.IssueTokenRequest(
        grant_type="client_credentials", client_id=account.client_id, client_secret=account.secret
    )
    service.tokens.IssueToken(issue, metadata=metadata)
    parts = ("sign", "bcrypt wait", "bcrypt hash", "transaction", "UPDATE secrets", "COMMIT")
    found = receiver.complete(trace_id, f"{SERVER}: {TOKENS}/IssueToken", *(f"{SERVER}: {part}" for part in parts))
    call = found[f"{SERVER}: {TOKENS}/IssueToken"]
    assert (call.parent, call.kind, call.failed) == (CALLER, "SERVER", False)
    assert call.attributes["rpc.system.name"] == "grpc"
    assert call.attributes["rpc.method"] == f"{TOKENS}/IssueToken"
    assert call.attributes["rpc.response.status_code"] == "OK"
    assert call.attributes["artstore.client_id"] == account.client_id
    for part in ("sign", "bcrypt wait", "bcrypt hash", "transaction"):
        assert found[f"{SERVER}: {part}"].parent == call.id
    update = found[f"{SERVER}: UPDATE secrets"]
    assert update.parent == found[f"{SERVER}: transaction"].id
    assert update.kind == "CLIENT"
    assert update.attributes == {
        "db.system.name": "sqlite",
        "db.operation.name": "UPDATE",
        "db.collection.name": "secrets",
        "db.query.summary": "UPDATE secrets",
    }


def test_a_call_by_http(service: Installation, receiver: Receiver) -> None:
    """In one process: the request, in it the call, in it the signature. The route is a template."""
    trace_id, (header,) = parented()
    who = service.administrator
    httpx.post(
        f"{service.url}/oauth2/token",
        data={"grant_type": "client_credentials"},
        auth=(who.client_id, who.client_secret),
        headers=dict([header]),
    ).raise_for_status()
    found = receiver.complete(trace_id, f"{SERVER}: POST /oauth2/token", f"{SERVER}: sign")
    http, call, sign = (found[f"{SERVER}: {name}"] for name in ("POST /oauth2/token", f"{TOKENS}/IssueToken", "sign"))
    assert (http.parent, call.parent, sign.parent) == (CALLER, http.id, call.id)
    assert (http.kind, call.kind) == ("SERVER", "INTERNAL")
    expected = {"http.request.method": "POST", "http.route": "/oauth2/token", "http.response.status_code": 200}
    assert http.attributes.items() >= expected.items()


def test_a_failed_call(service: Installation, receiver: Receiver) -> None:
    """Says its code and reason."""
    trace_id, metadata = parented()
    with pytest.raises(grpc.RpcError):
        service.tokens.IssueToken(request(service, "wrong"), metadata=metadata)
    call = receiver.complete(trace_id, f"{SERVER}: {TOKENS}/IssueToken")[f"{SERVER}: {TOKENS}/IssueToken"]
    assert call.attributes["rpc.response.status_code"] == "UNAUTHENTICATED"
    assert call.attributes["error.type"] == "INVALID_CLIENT"
    assert not call.failed


def test_a_stream_is_a_span(service: Installation, receiver: Receiver) -> None:
    """From its beginning to its end; that its caller goes away is no error."""
    trace_id, metadata = parented()
    stream = service.tokens.WatchTrust(tokens_pb.WatchTrustRequest(), metadata=(*metadata, *service.bearer()))
    next(stream)
    stream.cancel()
    call = receiver.complete(trace_id, f"{SERVER}: {TOKENS}/WatchTrust")[f"{SERVER}: {TOKENS}/WatchTrust"]
    assert (call.parent, call.failed) == (CALLER, False)


def test_who_is_not_recorded(service: Installation, receiver: Receiver) -> None:
    """A parent's decision against it is obeyed, and without a parent it is the ratio's, here 0: a trace's id is in the
    log all the same. Probes are never recorded."""
    refused = uuid4().hex
    service.tokens.IssueToken(request(service), metadata=(("traceparent", f"00-{refused}-{CALLER}-00"),))
    service.tokens.IssueToken(request(service), metadata=(("x-request-id", "none-of-these"),))
    probe, header = parented()
    httpx.get(f"{service.url}/health/live", headers=dict(header))
    later, metadata = parented()
    service.tokens.IssueToken(request(service), metadata=metadata)
    receiver.complete(later, f"{SERVER}: sign")
    assert not receiver.of(refused)
    assert not receiver.of(probe)
    assert f'"trace_id":"{refused}"' in service.log.getvalue()
    (line,) = [line for line in service.log.getvalue().splitlines() if "none-of-these" in line]
    assert '"trace_id":"' in line


def test_who_comes_behind_another(service: Installation, receiver: Receiver) -> None:
    """Requests in one piece over one connection (HTTP pipelining) are each recorded, or not, for themselves."""
    (first, _), second = parented(), uuid4().hex
    who = service.administrator
    credentials = b64encode(f"{who.client_id}:{who.client_secret}".encode()).decode()
    body = "grant_type=client_credentials"
    both = "".join(
        f"POST /oauth2/token HTTP/1.1\r\nHost: {service.started.gateway_address}\r\ntraceparent: {parent}\r\n"
        f"Authorization: Basic {credentials}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\nConnection: {connection}\r\n\r\n{body}"
        for parent, connection in ((f"00-{first}-{CALLER}-01", "keep-alive"), (f"00-{second}-{CALLER}-00", "close"))
    )
    address = service.started.gateway_address
    assert address is not None
    with socket.create_connection((address.host, address.port), timeout=30) as connected:
        connected.sendall(both.encode())
        answer = b"".join(iter(lambda: connected.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200") == 2
    receiver.complete(first, f"{SERVER}: POST /oauth2/token", f"{SERVER}: sign")
    later, metadata = parented()
    service.tokens.IssueToken(request(service), metadata=metadata)
    receiver.complete(later, f"{SERVER}: sign")
    assert not receiver.of(second)
    assert [each.name for each in receiver.of(first)].count(f"{TOKENS}/IssueToken") == 1


def traces(receiver: Receiver, ratio: float) -> Traces:
    return Traces(receiver.endpoint, ratio=ratio, service="test", environment="dev", logger=configured("info", Log()))


def call(traceparent: str = "") -> Call:
    return Call(f"{TOKENS}/IssueToken", "127.0.0.1", traceparent=traceparent)


@pytest.mark.parametrize(
    ("error", "kind", "failed"),
    [
        (InvalidClient(cause="wrong secret"), "INVALID_CLIENT", False),
        (asyncio.CancelledError(), "CancelledError", False),
        (Internal(cause="KeyError"), "INTERNAL", True),
    ],
)
async def test_whose_fault_it_is(receiver: Receiver, error: BaseException, kind: str, failed: bool) -> None:
    """A call's span is an error only where the service has failed: not where its caller was wrong, or went away. The
    part that failed in it always is one."""
    recorder, mine = traces(receiver, 1.0), call()
    with pytest.raises(type(error)), recorder.call(mine), span("part"):
        raise error
    await recorder.close()
    found = receiver.complete(mine.trace_id, "test: part", f"test: {mine.method}")
    assert found["test: part"].failed
    whole = found[f"test: {mine.method}"]
    assert (whole.failed, whole.attributes["error.type"]) == (failed, kind)


@pytest.mark.parametrize(
    ("status", "kind", "failed"), [(None, "CLIENT_GONE", False), (404, None, False), (503, "503", True)]
)
async def test_how_a_request_ended(receiver: Receiver, status: int | None, kind: str | None, failed: bool) -> None:
    """By its status; who goes away before there is one is no fault of the service's."""
    recorder, mine = traces(receiver, 1.0), call()
    with recorder.request(mine, "GET", "/docs") as recorded:
        assert recorded is not None
        recorded.answered(status)
    await recorder.close()
    found = receiver.complete(mine.trace_id, "test: GET /docs")["test: GET /docs"]
    assert (found.failed, found.attributes.get("error.type")) == (failed, kind)
    assert found.attributes.get("http.response.status_code") == status


async def test_the_last_spans_without_grace(receiver: Receiver) -> None:
    """Where the calls in flight have used the whole grace up, the last spans have a second of their own."""
    recorder, mine = traces(receiver, 1.0), call()
    with recorder.call(mine):
        recorder.draining(timedelta(0))
    await recorder.close()
    receiver.complete(mine.trace_id, f"test: {mine.method}")


async def test_the_ratio(receiver: Receiver) -> None:
    """1 records each call without a parent, 0 none; the next service is told the same decision."""
    for ratio, flags in ((1.0, "01"), (0.0, "00")):
        recorder = traces(receiver, ratio)
        for _ in range(20):
            mine = call()
            with recorder.call(mine) as recorded:
                assert (recorded is not None) == bool(ratio)
            assert mine.traceparent.endswith(f"-{flags}")
        await recorder.close()


async def test_strangers_force_no_more_than_so_many(receiver: Receiver) -> None:
    """Of calls whose parent is recorded only so many a second are; the others aren't by the next service either."""
    recorder = traces(receiver, 0.0)
    decided = []
    for _ in range(3 * FORCED_A_SECOND):
        mine = call(parented()[1][0][1])
        trace_id = mine.trace_id
        with recorder.call(mine) as recorded:
            decided.append(recorded is not None)
        assert mine.trace_id == trace_id
        assert mine.traceparent.endswith("-01" if decided[-1] else "-00")
    assert FORCED_A_SECOND <= sum(decided) < 2 * FORCED_A_SECOND
    await recorder.close()


async def test_what_a_call_leaves_behind_is_not_its_own(receiver: Receiver) -> None:
    """A task that goes on after its call ended has no more spans."""
    recorder = traces(receiver, 1.0)
    with recorder.call(call()) as recorded:
        with span("within") as within:
            assert within is not None
        with span("open") as outer:
            assert CURRENT.get() is outer
    CURRENT.set(recorded)
    with span("afterwards") as nobody:
        assert nobody is None
    await recorder.close()


def test_no_secret_is_in_a_span(tmp_path: Path) -> None:
    """Canaries through every method that takes one, by both doors, succeeding and failing, with each call recorded."""
    with Receiver() as receiver:
        with Talkative(tmp_path, traces_endpoint=receiver.endpoint, traces_sample=1.0) as service:
            plot = Plot(service)
            use_everything(plot)
        assert len(receiver.spans) > 50
        assert_silent(plot, receiver.said)


@pytest.mark.parametrize("state", ["hangs", "is down"])
def test_a_receiver_that_does_not_take_them(tmp_path: Path, state: str) -> None:
    """Costs spans, never a call, past the queue's bound too; and the stop is over within the grace."""
    with Receiver(hangs=True) as receiver:
        endpoint = receiver.endpoint if state == "hangs" else "http://127.0.0.1:1"
        service = Installation(tmp_path, traces_endpoint=endpoint, traces_sample=1.0, drain_grace=timedelta(seconds=2))
        with service:
            slowest = 0.0
            for _ in range(MAX_QUEUE // 2 + 100):  # each is two spans
                began = time.monotonic()
                service.tokens.IssueToken(request(service))
                slowest = max(slowest, time.monotonic() - began)
            assert state == "is down" or receiver.asked.wait(5)
            began = time.monotonic()
        assert time.monotonic() - began < 2 + 6
        assert state == "is down" or "spans lost" in service.log.getvalue()
        assert slowest < SEND_TIMEOUT.total_seconds()


async def test_a_workers_last_spans(tmp_path: Path) -> None:
    """Have the time that its supervisor gives it, whatever the settings say: past that it would be killed."""
    stop, log = asyncio.Event(), Log()
    reached: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
    share = Share(Metrics(), asyncio.Event(), within=timedelta(seconds=1))
    with Receiver(hangs=True) as receiver:
        settings = Settings(
            data_dir=tmp_path,
            grpc_address=ANY,
            gateway_address=ANY,
            metrics_address=None,
            traces_endpoint=receiver.endpoint,
            traces_sample=1.0,
            drain_delay=timedelta(seconds=30),
        )
        logger = configured("info", log)
        serving = asyncio.create_task(
            serve(settings, on_started=reached.set_result, stop=stop, logger=logger, share=share)
        )
        address = (await asyncio.wait_for(reached, 15)).grpc_address
        async with grpc.aio.insecure_channel(str(address)) as channel:
            await TokenServiceStub(channel).GetServerMetadata(tokens_pb.GetServerMetadataRequest())
        began = time.monotonic()
        stop.set()
        await serving
    assert time.monotonic() - began < 1 + 15
    assert "spans lost" in log.getvalue()


async def test_a_receiver_with_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`https://` is TLS, by a CA that OpenTelemetry's own variable names; who trusts another CA sends nothing."""
    files, other = Files(tmp_path), tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    credentials = grpc.ssl_server_credentials([(files.key.read_bytes(), files.certificate.read_bytes())])
    with Receiver(credentials=credentials) as receiver:
        for ca, arrived in ((other, 0), (files.ca_file, 1)):
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(ca))
            recorder = traces(receiver, 1.0)
            with recorder.call(call()):
                pass
            recorder.draining(timedelta(seconds=5))
            await recorder.close()
            assert len(receiver.spans) == arrived


ALONE = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from artstore_grpc import app
from artstore_grpc.cli import gateway, serve
from artstore_grpc.settings import Address, Settings

async def main():
    stop, any = asyncio.Event(), Address(host="127.0.0.1", port=0)
    settings = Settings(data_dir=Path(sys.argv[1]), grpc_address=any, gateway_address=any, metrics_address=any,
                        bcrypt_cost=4, traces_endpoint=sys.argv[2])
    await app.serve(settings, on_started=lambda started: stop.set(), stop=stop)

asyncio.run(main())
parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto", "artstore_grpc.telemetry.traces")
print([part for part in parts if part in sys.modules])
"""


@pytest.mark.slow
def test_off_it_is_not_even_imported(tmp_path: Path) -> None:
    """A service that traces nothing, the default, has neither the tracing SDK nor an exporter in its process; one
    that traces has. (Redis's own library imports the API and the SDK of metrics.)"""

    def imported(endpoint: str) -> str:
        command = [sys.executable, "-c", ALONE, str(tmp_path / "data"), endpoint]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    assert imported("") == "[]"
    assert "opentelemetry.sdk.trace" in imported("http://127.0.0.1:1")
