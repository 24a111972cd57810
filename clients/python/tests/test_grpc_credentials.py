"""Tokens on gRPC calls: with TLS and without, of every kind, with asyncio and in threads; and what a refusal does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
import pytest
import trustme
from artstore.identity import (
    InvalidClient,
    SyncTokenSource,
    TokenInterceptor,
    TokenSource,
    aio_token_interceptors,
    call_credentials,
)
from artstore.identity.errors import DOMAIN
from artstore.identity.v1 import token_service_pb2 as pb
from canned import Canned, Refused
from clocks import Clock, eventually
from google.rpc.error_details_pb2 import ErrorInfo

ME = {"client_id": "sa_dev_test_00000000", "client_secret": "the-secret"}
KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


@dataclass
class Resource:
    """A service that records the `authorization` of each call, and refuses some."""

    target: str = ""
    seen: list[list[str]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    waits: asyncio.Event | None = None
    cancelled: int = 0

    async def check(self, context: grpc.aio.ServicerContext) -> None:
        sent = [str(value) for key, value in context.invocation_metadata() or () if key == "authorization"]
        self.seen.append(sent)
        if self.waits is not None:
            try:
                await self.waits.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.refused & set(sent):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "No.")

    async def one(self, _: Any, context: grpc.aio.ServicerContext) -> bytes:
        await self.check(context)
        return b"answer"

    async def many(self, _: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        await self.check(context)
        yield b"answer"

    def handlers(self) -> grpc.GenericRpcHandler:
        made = {
            kind: getattr(grpc, f"{kind}_rpc_method_handler")(self.many if kind.endswith("stream") else self.one)
            for kind in KINDS
        }
        return grpc.method_handlers_generic_handler("test.Resource", made)


@asynccontextmanager
async def serving(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[Resource]:
    resource = Resource()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((resource.handlers(),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    resource.target = f"127.0.0.1:{port}"
    await server.start()
    yield resource
    await server.stop(None)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> grpc.ServerCredentials:
    certificate = authority.issue_cert("127.0.0.1")
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    return grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])


@pytest.fixture(autouse=True)
def tokens(server: Canned) -> None:
    server.answers["IssueToken"] = lambda _: pb.IssueTokenResponse(
        access_token=f"token-{len(server.named('IssueToken'))}", expires_in=1800
    )


async def aio_call(channel: grpc.aio.Channel, kind: str, **options: Any) -> list[bytes]:
    """One call of a kind; what was answered. Raises AioRpcError."""
    request: Any = iter([b"request"]) if kind.startswith("stream") else b"request"
    call = getattr(channel, kind)(f"/test.Resource/{kind}")(request, timeout=10, **options)
    if kind.endswith("stream"):
        return [each async for each in call]
    return [await call]


def sync_call(channel: grpc.Channel, kind: str, **options: Any) -> list[bytes]:
    """The same in a thread. Raises RpcError."""
    request: Any = iter([b"request"]) if kind.startswith("stream") else b"request"
    answer: Any = getattr(channel, kind)(f"/test.Resource/{kind}")(request, timeout=10, **options)
    return list(answer) if kind.endswith("stream") else [answer]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_plain_channel_with_asyncio(server: Canned, kind: str) -> None:
    """Each kind of call has the token; refused, the next one has another."""
    clock = Clock()
    async with (
        serving() as resource,
        TokenSource(server.target, **ME, clock=clock) as source,
        grpc.aio.insecure_channel(resource.target, interceptors=aio_token_interceptors(source)) as channel,
    ):
        assert await aio_call(channel, kind) == [b"answer"]
        clock.advance(60)
        resource.refused = {"Bearer token-1"}
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await aio_call(channel, kind)
        await eventually(lambda: not source.held())
        assert await aio_call(channel, kind, metadata=(("authorization", "another"), ("x-kept", "y"))) == [b"answer"]
    assert resource.seen == [["Bearer token-1"], ["Bearer token-1"], ["Bearer token-2"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_plain_channel_in_threads(server: Canned, kind: str) -> None:
    """The same without asyncio."""
    clock = Clock()

    def calls(resource: Resource, source: SyncTokenSource) -> None:
        with grpc.insecure_channel(resource.target) as plain:
            channel = grpc.intercept_channel(plain, TokenInterceptor(source))
            assert sync_call(channel, kind) == [b"answer"]
            clock.advance(60)
            resource.refused = {"Bearer token-1"}
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                sync_call(channel, kind)

    def more(resource: Resource, source: SyncTokenSource) -> None:
        with grpc.insecure_channel(resource.target) as plain:
            channel = grpc.intercept_channel(plain, TokenInterceptor(source))
            assert sync_call(channel, kind, metadata=(("authorization", "another"),)) == [b"answer"]
            if kind.endswith("unary"):
                method = getattr(channel, kind)(f"/test.Resource/{kind}")
                request: Any = iter([b"request"]) if kind.startswith("stream") else b"request"
                assert method.future(request, timeout=10).result() == b"answer"

    async with serving() as resource:
        with SyncTokenSource(server.target, **ME, clock=clock) as source:
            await asyncio.to_thread(calls, resource, source)
            await eventually(lambda: not source.held())
            await asyncio.to_thread(more, resource, source)
    assert resource.seen[:3] == [["Bearer token-1"], ["Bearer token-1"], ["Bearer token-2"]]


async def test_another_refusal_keeps_the_token(server: Canned) -> None:
    """Only UNAUTHENTICATED is about the token."""
    clock = Clock()
    async with (
        serving() as resource,
        TokenSource(server.target, **ME, clock=clock) as source,
        grpc.aio.insecure_channel(resource.target, interceptors=aio_token_interceptors(source)) as channel,
    ):
        await aio_call(channel, "unary_unary")
        clock.advance(60)
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await channel.unary_unary("/test.Resource/nothing")(b"")
        assert source.held() == "token-1"


async def test_a_cancelled_call_is_cancelled_at_its_server(server: Canned) -> None:
    """The interceptor that looks at its end doesn't keep it alive."""
    async with (
        serving() as resource,
        TokenSource(server.target, **ME) as source,
        grpc.aio.insecure_channel(resource.target, interceptors=aio_token_interceptors(source)) as channel,
    ):
        resource.waits = asyncio.Event()
        call: Any = channel.unary_unary("/test.Resource/unary_unary")(b"")
        waiting = asyncio.ensure_future(call)
        await eventually(lambda: resource.seen)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await eventually(lambda: resource.cancelled)


async def test_no_token_is_the_callers_error(server: Canned) -> None:
    """What the source raises arrives as it is, with asyncio and in threads; the service isn't called."""

    def refuse(_: object) -> pb.IssueTokenResponse:
        raise Refused(grpc.StatusCode.UNAUTHENTICATED, "No.", ErrorInfo(reason="INVALID_CLIENT", domain=DOMAIN))

    server.answers["IssueToken"] = refuse
    async with serving() as resource, TokenSource(server.target, **ME) as source:
        interceptors = aio_token_interceptors(source)
        async with grpc.aio.insecure_channel(resource.target, interceptors=interceptors) as channel:
            with pytest.raises(InvalidClient):
                await aio_call(channel, "unary_unary")

        def threaded() -> None:
            with (
                SyncTokenSource(server.target, **ME) as sync,
                grpc.insecure_channel(resource.target) as plain,
                pytest.raises(InvalidClient),
            ):
                sync_call(grpc.intercept_channel(plain, TokenInterceptor(sync)), "unary_unary")

        await asyncio.to_thread(threaded)
        assert not resource.seen


def composed(authority: trustme.CA, credentials: grpc.CallCredentials) -> grpc.ChannelCredentials:
    roots = authority.cert_pem.bytes()
    return grpc.composite_channel_credentials(grpc.ssl_channel_credentials(roots), credentials)


@pytest.mark.parametrize("kind", KINDS)
async def test_call_credentials_with_asyncio(
    server: Canned, authority: trustme.CA, tls: grpc.ServerCredentials, kind: str
) -> None:
    """Over TLS; with interceptors that only watch, a refused token is replaced there too."""
    clock = Clock()
    async with serving(tls) as resource, TokenSource(server.target, **ME, clock=clock) as source:
        credentials = composed(authority, call_credentials(source))
        watching = aio_token_interceptors(source, attach=False)
        async with grpc.aio.secure_channel(resource.target, credentials, interceptors=watching) as channel:
            for _ in range(3):
                assert await aio_call(channel, kind) == [b"answer"]
            clock.advance(60)
            resource.refused = {"Bearer token-1"}
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await aio_call(channel, kind)
            await eventually(lambda: not source.held())
            assert await aio_call(channel, kind) == [b"answer"]
    assert resource.seen == [["Bearer token-1"]] * 4 + [["Bearer token-2"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_call_credentials_in_threads(
    server: Canned, authority: trustme.CA, tls: grpc.ServerCredentials, kind: str
) -> None:
    """The same without asyncio."""
    clock = Clock()

    def calls(resource: Resource, source: SyncTokenSource) -> None:
        credentials = composed(authority, call_credentials(source))
        with grpc.secure_channel(resource.target, credentials) as secure:
            channel = grpc.intercept_channel(secure, TokenInterceptor(source, attach=False))
            assert sync_call(channel, kind) == [b"answer"]
            clock.advance(60)
            resource.refused = {"Bearer token-1"}
            with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
                sync_call(channel, kind)

    async with serving(tls) as resource:
        with SyncTokenSource(server.target, **ME, clock=clock) as source:
            await asyncio.to_thread(calls, resource, source)
            await eventually(lambda: not source.held())
    assert resource.seen == [["Bearer token-1"]] * 2


async def test_an_asyncio_source_on_a_threads_channel(
    server: Canned, authority: trustme.CA, tls: grpc.ServerCredentials
) -> None:
    """A program with a loop and a channel without: the plugin asks the loop."""
    async with serving(tls) as resource, TokenSource(server.target, **ME) as source:
        credentials = composed(authority, call_credentials(source, audience=iter(["a"])))
        with grpc.secure_channel(resource.target, credentials) as channel:
            for _ in range(2):
                assert await asyncio.to_thread(sync_call, channel, "unary_unary") == [b"answer"]
    assert resource.seen == [["Bearer token-1"]] * 2
    assert [list(request.audience) for request, _ in server.named("IssueToken")] == [["a"]]


@pytest.mark.parametrize("make", [TokenSource, SyncTokenSource])
async def test_call_credentials_without_a_token(
    server: Canned, authority: trustme.CA, tls: grpc.ServerCredentials, make: Callable[..., Any]
) -> None:
    """The call fails, with the reason and without a secret; it doesn't hang."""

    def refuse(_: object) -> pb.IssueTokenResponse:
        raise Refused(grpc.StatusCode.UNAUTHENTICATED, "No such.", ErrorInfo(reason="INVALID_CLIENT", domain=DOMAIN))

    server.answers["IssueToken"] = refuse
    async with serving(tls) as resource:
        source = make(server.target, **ME, timeout=timedelta(seconds=5))
        credentials = composed(authority, call_credentials(source))
        async with grpc.aio.secure_channel(resource.target, credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match=r"No such\.") as caught:
                await aio_call(channel, "unary_unary")
        closing = source.close()
        if closing is not None:
            await closing
    assert "the-secret" not in str(caught.value)
    assert not resource.seen


async def test_call_credentials_are_not_sent_in_plain_text(server: Canned) -> None:
    """gRPC refuses to put them on a channel without TLS; a token never leaves by accident."""
    async with serving() as resource, TokenSource(server.target, **ME) as source:
        await source.token()
        async with grpc.aio.insecure_channel(resource.target) as channel:
            with pytest.raises(Exception, match="only valid on secure channels"):
                await aio_call(channel, "unary_unary", credentials=call_credentials(source))
        credentials = call_credentials(source)
        with grpc.insecure_channel(resource.target) as plain, pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            await asyncio.to_thread(sync_call, plain, "unary_unary", credentials=credentials)
    assert not resource.seen
