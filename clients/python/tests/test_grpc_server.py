"""The interceptors on real gRPC servers, of grpc.aio and of threads: every kind of call, refusals, streams that end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from artstore.identity import (
    AUTHENTICATED,
    PUBLIC,
    AioBearerInterceptor,
    BearerInterceptor,
    KeySet,
    TokenVerifier,
    any_of,
    current_caller,
    role,
    scope,
)
from artstore.identity.errors import InvalidToken, PermissionDenied, Unavailable, from_rpc_error
from artstore.identity.refusals import TokenRevoked
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from issuer import AUDIENCE, ISSUER, NOW, Hands, Source, token

TABLE = {
    "/t.Files/Unary": scope("storage.read"),
    "/t.Files/Answers": scope("storage.read"),
    "/t.Files/Requests": scope("storage.read"),
    "/t.Files/Both": scope("storage.read"),
    "/t.Files/Written": scope("storage.read"),
    "/t.Files/Threaded": scope("storage.read"),
    "/t.Files/Endless": scope("storage.read"),
    "/t.Files/Waiting": AUTHENTICATED,
    "/t.Files/Admin": any_of(role("admin"), scope("identity.keys.write")),
    "/t.Files/Auditor": role("auditor"),
    "/t.Files/Open": PUBLIC,
}
MANY = 20


def who(*_: Any) -> bytes:
    try:
        return current_caller().client_id.encode()
    except LookupError:
        return b"nobody"


async def aio_unary(request: bytes, context: Any) -> bytes:
    await asyncio.sleep(0)
    return who()


async def aio_answers(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(MANY):
        await asyncio.sleep(0)
        yield who()


async def aio_requests(requests: Any, context: Any) -> bytes:
    return b"%d %s" % (len([each async for each in requests]), who())


async def aio_both(requests: Any, context: Any) -> AsyncIterator[bytes]:
    async for each in requests:
        yield each + who()


async def aio_written(request: bytes, context: Any) -> None:
    for _ in range(MANY):
        await context.write(who())


async def aio_endless(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield who()
    await asyncio.Event().wait()


async def aio_waiting(requests: Any, context: Any) -> bytes:
    async for _ in requests:
        pass
    return who()


def sync_answers(request: bytes, context: Any) -> Iterator[bytes]:
    for _ in range(MANY):
        yield who()


def sync_requests(requests: Any, context: Any) -> bytes:
    return b"%d %s" % (len(list(requests)), who())


def sync_both(requests: Any, context: Any) -> Iterator[bytes]:
    for each in requests:
        yield each + who()


def sync_endless(request: bytes, context: Any) -> Iterator[bytes]:
    while True:
        yield who()
        time.sleep(0.01)


def sync_waiting(requests: Any, context: Any) -> bytes:
    for _ in requests:
        pass
    return who()


def handlers(aio: bool) -> dict[str, grpc.RpcMethodHandler]:
    unary, answers = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    requests, both = grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    simple: Any = aio_unary if aio else who
    return {
        **dict.fromkeys(("Unary", "Admin", "Auditor", "Open", "Unlisted"), unary(simple)),
        "Answers": answers(aio_answers if aio else sync_answers),
        "Requests": requests(aio_requests if aio else sync_requests),
        "Both": both(aio_both if aio else sync_both),
        "Written": answers(aio_written if aio else sync_answers),
        "Threaded": unary(who),
        "Endless": answers(aio_endless if aio else sync_endless),
        "Waiting": requests(aio_waiting if aio else sync_waiting),
    }


class Service:
    """A server, its verifier, and a blocking channel to it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.hands, self.source = Hands(), Source()
        keys = KeySet(self.source, clock=self.hands.steady)
        self.verifier = TokenVerifier(
            ISSUER, audience=AUDIENCE, keys=keys, clock=self.hands.wall, steady=self.hands.steady
        )
        self.channel: grpc.Channel

    def call(self, method: str, sent: str | None = None, *authorization: str) -> Any:
        """A unary call's answer."""
        stub: Callable[..., Any] = self.channel.unary_unary(f"/t.Files/{method}")
        return stub(b"x", metadata=headers(sent, *authorization), timeout=10)


def headers(sent: str | None, *authorization: str) -> tuple[tuple[str, str], ...]:
    values = ([f"Bearer {sent}"] if sent is not None else []) + list(authorization)
    return tuple(("authorization", value) for value in values)


@contextmanager
def aio_server(service: Service) -> Iterator[int]:
    started: Any = threading.Event()
    ports: list[int] = []
    loops: list[Any] = []

    async def serve() -> None:
        server = grpc.aio.server(interceptors=[AioBearerInterceptor(service.verifier, TABLE)])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Files", handlers(True)),))
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        stop = asyncio.Event()
        loops.extend([asyncio.get_running_loop(), stop])
        started.set()
        await stop.wait()
        await server.stop(None)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    yield ports[0]
    loops[0].call_soon_threadsafe(loops[1].set)
    thread.join()


@contextmanager
def sync_server(service: Service) -> Iterator[int]:
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[BearerInterceptor(service.verifier, TABLE)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Files", handlers(False)),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.fixture(params=["aio", "sync"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    made = Service(request.param)
    serve = aio_server if request.param == "aio" else sync_server
    with serve(made) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as made.channel:
        yield made


def refused(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def challenge(error: Any) -> str | None:
    return dict(error.trailing_metadata()).get("www-authenticate")


def info(error: Any) -> ErrorInfo:
    found = ErrorInfo()
    Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]).details[0].Unpack(found)
    return found


@pytest.mark.parametrize("known", [False, True])
def test_all_four_kinds(service: Service, known: bool) -> None:
    """Each handler finds its caller, throughout; seen first and seen before."""
    sent, name = token(), b"sa_dev_tester_00000001"
    if known:
        service.call("Unary", sent)
    metadata, channel = headers(sent), service.channel
    assert service.call("Unary", sent) == name
    assert service.call("Threaded", sent) == name
    for method in ("Answers", "Written"):
        assert list(channel.unary_stream(f"/t.Files/{method}")(b"x", metadata=metadata)) == [name] * MANY
    assert channel.stream_unary("/t.Files/Requests")(iter([b"a"] * 3), metadata=metadata) == b"3 " + name
    both = channel.stream_stream("/t.Files/Both")(iter([b"a", b"b"]), metadata=metadata)
    assert list(both) == [b"a" + name, b"b" + name]


def test_callers_do_not_mix(service: Service) -> None:
    """Many at once, of many accounts: each handler has its own."""
    sent = [token(client_id=f"client {number}") for number in range(8)]

    def work(number: int) -> bool:
        stream = service.channel.unary_stream("/t.Files/Answers")(b"x", metadata=headers(sent[number % 8]))
        expected = f"client {number % 8}".encode()
        return service.call("Unary", sent[number % 8]) == expected and list(stream) == [expected] * MANY

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))
    assert service.call("Open") == b"nobody"


def test_without_credentials(service: Service) -> None:
    """RFC 6750 §3.1: a challenge without an error code; another scheme is no credentials."""
    for call in (
        lambda: service.call("Unary"),
        lambda: service.call("Unary", None, "Basic YTpi"),
        lambda: service.call("Unlisted"),
        lambda: list(service.channel.unary_stream("/t.Files/Answers")(b"x")),
        lambda: list(service.channel.stream_stream("/t.Files/Both")(iter([b"x"]))),
        lambda: service.channel.stream_unary("/t.Files/Requests")(iter([b"x"])),
    ):
        error = refused(call)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert challenge(error) == "Bearer"
        assert info(error).reason == "MISSING_TOKEN"


def test_malformed_credentials(service: Service) -> None:
    """RFC 6750 §3.1, invalid_request: nothing, two words, or two headers; no error leads to a guess."""
    for values in (["Bearer"], ["Bearer "], ["Bearer a b"], ["Bearer a,b"], [f"Bearer {token()}"] * 2):
        error = refused(lambda values=values: service.call("Unary", None, *values))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert str(challenge(error)).startswith('Bearer error="invalid_request"')


def test_a_token_that_is_not_valid(service: Service) -> None:
    """UNAUTHENTICATED and invalid_token, whatever is wrong; the cause is a word, and the client library knows it."""
    for sent, cause in ((token(aud="x"), "WRONG_AUDIENCE"), (token(exp=int(NOW) - 60), "EXPIRED"), ("x", "MALFORMED")):
        error = refused(lambda sent=sent: service.call("Unary", sent))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert challenge(error) == 'Bearer error="invalid_token", error_description="The access token is not valid."'
        assert dict(info(error).metadata) == {"cause": cause}
        assert isinstance(from_rpc_error(error), InvalidToken)
        assert sent not in str(error) or sent == "x"


def test_what_the_table_does_not_allow(service: Service) -> None:
    """PERMISSION_DENIED and insufficient_scope, with the scope that would help; what no row names, nobody may call."""
    for method, wanted in (("Admin", "identity.keys.write"), ("Auditor", ""), ("Unlisted", "")):
        error = refused(lambda method=method: service.call(method, token()))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert 'error="insufficient_scope"' in str(challenge(error))
        assert (f'scope="{wanted}"' in str(challenge(error))) is bool(wanted)
        assert isinstance(from_rpc_error(error), PermissionDenied)
    assert service.call("Admin", token(role="admin"))
    assert service.call("Admin", token(scope="identity.keys.write"))
    assert service.call("Auditor", token(role="auditor"))


def test_public_methods(service: Service) -> None:
    """No token is needed, and one that is bad does no harm; a method that nobody serves is just that."""
    assert service.call("Open") == b"nobody"
    assert service.call("Open", "nonsense") == b"nobody"
    assert refused(lambda: service.call("Nowhere", token())).code() is grpc.StatusCode.UNIMPLEMENTED


def test_when_nobody_can_verify(service: Service) -> None:
    """UNAVAILABLE with RetryInfo: the token may be good, and another one would not help."""
    service.source.fails()
    error = refused(lambda: service.call("Unary", token()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert challenge(error) is None
    read = from_rpc_error(error)
    assert isinstance(read, Unavailable)
    assert read.reason == "CANNOT_VERIFY"
    assert read.retry_after is not None


def test_a_stream_ends_with_its_token(service: Service) -> None:
    """Expired in the middle: UNAUTHENTICATED within a second, as a call with that token would get."""
    stream = service.channel.unary_stream("/t.Files/Endless")(b"x", metadata=headers(token()), timeout=10)
    assert next(stream) == b"sa_dev_tester_00000001"
    service.hands.advance(1806)
    error = refused(lambda: list(stream))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert 'error="invalid_token"' in str(challenge(error))
    assert dict(info(error).metadata) == {"cause": "EXPIRED"}


def test_a_stream_ends_when_its_token_is_revoked(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of requests: under grpc.aio at once although nothing comes; under threads with the next message."""
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"x"
        if service.kind == "aio":
            over.wait(10)
        else:
            while not over.wait(0.02):
                yield b"x"

    sent = token()
    future = service.channel.stream_unary("/t.Files/Waiting").future(requests(), metadata=headers(sent), timeout=10)

    def revoked(_: Any) -> None:
        raise TokenRevoked("It was revoked.")

    while not service.verifier.remembered:
        time.sleep(0.001)
    monkeypatch.setattr(service.verifier, "recheck", revoked)
    error = refused(future.result)
    over.set()
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert dict(info(error).metadata) == {"cause": "REVOKED"}


def test_a_handlers_own_errors_stay(service: Service) -> None:
    """What the handler raises or aborts with is not taken for ours."""
    call = service.channel.unary_stream("/t.Files/Endless")(b"x", metadata=headers(token()))
    assert next(call)
    call.cancel()
    assert refused(lambda: list(call)).code() is grpc.StatusCode.CANCELLED


def test_a_wrong_table_is_refused_at_once(service: Service) -> None:
    """When the server is made, not when somebody calls."""
    for kind in (AioBearerInterceptor, BearerInterceptor):
        with pytest.raises(ValueError, match="is no gRPC method"):
            kind(service.verifier, {"Files/Unary": PUBLIC})
