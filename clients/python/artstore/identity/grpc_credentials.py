"""Access tokens on gRPC calls: call credentials where the channel has TLS, interceptors where it hasn't or has.

gRPC sends call credentials over TLS only; inside a mesh that encrypts for its services a channel is plain text, and
an interceptor adds the token there. Only an interceptor sees the answer: on UNAUTHENTICATED the token that was sent is
forgotten, so that the next call has a new one. The call itself is not made again: it may be a stream, and gRPC's own
retries are its caller's choice.

    TLS:        grpc.composite_channel_credentials(grpc.ssl_channel_credentials(…), call_credentials(source))
    plain text: grpc.aio.insecure_channel(target, interceptors=aio_token_interceptors(source))
                grpc.intercept_channel(grpc.insecure_channel(target), TokenInterceptor(sync_source))

On a channel with call credentials, interceptors with `attach=False` add nothing and only watch the answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

import grpc
from artstore.identity.token_source import Source, SyncTokenSource, TokenSource

HEADER = "authorization"


class TokenPlugin(grpc.AuthMetadataPlugin):
    """Gives gRPC a token for each call; gRPC asks from threads of its own, so that waiting here blocks no loop."""

    def __init__(
        self,
        source: TokenSource | SyncTokenSource,
        *,
        scope: str = "",
        audience: str | Iterable[str] = (),
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`scope` and `audience` are those of `source.token`. `loop` is the one that a TokenSource belongs to; None:
        the one that runs now. Raises RuntimeError for a TokenSource where none runs."""
        self._source = source
        self._wanted: dict[str, Any] = {"scope": scope, "audience": _kept(audience)}
        self._loop = None
        if isinstance(source, TokenSource):
            self._loop = loop or asyncio.get_running_loop()

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        if held := self._source.held(**self._wanted):
            callback(((HEADER, f"Bearer {held}"),), None)
            return
        if self._loop is not None and isinstance(self._source, TokenSource):
            asking = self._source.token(**self._wanted)
            try:
                asyncio.run_coroutine_threadsafe(asking, self._loop).add_done_callback(partial(_answer, callback))
            except RuntimeError as error:  # the loop is closed
                asking.close()
                callback((), error)
            return
        assert isinstance(self._source, SyncTokenSource)
        try:
            token = self._source.token(**self._wanted)
        except Exception as error:  # gRPC waits for the callback: whatever it is, it is the call's failure
            callback((), error)
        else:
            callback(((HEADER, f"Bearer {token}"),), None)


def _answer(callback: grpc.AuthMetadataPluginCallback, asked: Future[str]) -> None:
    try:
        token = asked.result()
    except CancelledError:
        callback((), RuntimeError("The event loop of the token source has ended."))
    except Exception as error:  # as above
        callback((), error)
    else:
        callback(((HEADER, f"Bearer {token}"),), None)


def call_credentials(
    source: TokenSource | SyncTokenSource,
    *,
    scope: str = "",
    audience: str | Iterable[str] = (),
    loop: asyncio.AbstractEventLoop | None = None,
) -> grpc.CallCredentials:
    """Call credentials for channels with TLS, with asyncio or without. A call without a token fails as UNAVAILABLE with
    the source's error in its details. The rest is as for TokenPlugin."""
    return grpc.metadata_call_credentials(TokenPlugin(source, scope=scope, audience=audience, loop=loop), "artstore")


class TokenSender:
    """What every interceptor of a source does before a call, and after it."""

    def __init__(
        self, source: Source, *, scope: str = "", audience: str | Iterable[str] = (), attach: bool = True
    ) -> None:
        """`scope` and `audience` are those of `source.token`. Without `attach` no token is added: the channel's call
        credentials do that."""
        self._source = source
        self._wanted: dict[str, Any] = {"scope": scope, "audience": _kept(audience)}
        self._attach = attach

    def _sent(self, metadata: Any, token: str) -> list[tuple[str, str | bytes]]:
        """The call's metadata, with the token in place of one that its caller may have put there."""
        return [*((key, value) for key, value in metadata or () if key.lower() != HEADER), (HEADER, f"Bearer {token}")]

    def _patience(self, timeout_seconds: float | None) -> timedelta | None:
        """How long a call waits for its token: not longer than for its answer."""
        seconds = self._source.timeout.total_seconds()
        return None if timeout_seconds is None else timedelta(seconds=min(timeout_seconds, seconds))

    def _answered(self, code: grpc.StatusCode | None, token: str) -> None:
        if code is grpc.StatusCode.UNAUTHENTICATED:
            self._source.invalidate(token)


class TokenInterceptor(
    TokenSender,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Sends a token with every call of a channel without asyncio: `grpc.intercept_channel(channel, …)`. A call for
    which there is no token raises what `SyncTokenSource.token` raises."""

    _source: SyncTokenSource

    def _intercepted(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        if not self._attach:
            call = continuation(details, request)
            self._watch(call, self._source.held(**self._wanted))
            return call
        token = self._source.token(timeout=self._patience(details.timeout), **self._wanted)
        call = continuation(_Details.of(details, self._sent(details.metadata, token)), request)
        self._watch(call, token)
        return call

    def _watch(self, call: Any, token: str) -> None:
        # A blocking call is over here; the code of another would have to be waited for.
        over = getattr(call, "done", lambda: False)()
        if over or not call.add_callback(lambda: self._answered(call.code(), token)):
            self._answered(call.code(), token)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._intercepted(continuation, client_call_details, request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._intercepted(continuation, client_call_details, request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._intercepted(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._intercepted(continuation, client_call_details, request_iterator)


class _Details(NamedTuple):
    """grpc.ClientCallDetails, which has no constructor of its own."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any

    @classmethod
    def of(cls, details: Any, metadata: Any) -> _Details:
        return cls(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


class _AioSender(TokenSender):
    """The same for grpc.aio."""

    _source: TokenSource

    def __init__(self, source: TokenSource, **options: Any) -> None:
        super().__init__(source, **options)
        self._watching: set[asyncio.Task[None]] = set()

    async def _called(self, continuation: Callable[..., Any], details: Any, request: Any) -> tuple[Any, str]:
        if not self._attach:
            token = self._source.held(**self._wanted)
            return await continuation(details, request), token
        token = await self._source.token(timeout=self._patience(details.timeout), **self._wanted)
        metadata = grpc.aio.Metadata(*self._sent(details.metadata, token))
        return await continuation(details._replace(metadata=metadata), request), token

    async def _streaming(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        call, token = await self._called(continuation, details, request)

        def watch(done: Any) -> None:
            task = asyncio.get_running_loop().create_task(self._watch(done, token))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)

        call.add_done_callback(watch)
        return call

    async def _watch(self, call: Any, token: str) -> None:
        self._answered(await call.code(), token)


class AioUnaryUnaryTokens(_AioSender, grpc.aio.UnaryUnaryClientInterceptor):
    """Sends a token with a call that has one request and one answer."""

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        call, token = await self._called(continuation, client_call_details, request)
        try:
            await self._watch(call, token)
        except asyncio.CancelledError:
            call.cancel()  # the code is only looked at: without this the call would go on for nobody
            raise
        return call


class AioUnaryStreamTokens(_AioSender, grpc.aio.UnaryStreamClientInterceptor):
    """Sends a token with a call whose answer is a stream."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._streaming(continuation, client_call_details, request)


class AioStreamUnaryTokens(_AioSender, grpc.aio.StreamUnaryClientInterceptor):
    """Sends a token with a call whose request is a stream."""

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._streaming(continuation, client_call_details, request_iterator)


class AioStreamStreamTokens(_AioSender, grpc.aio.StreamStreamClientInterceptor):
    """Sends a token with a call whose request and answer are streams."""

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._streaming(continuation, client_call_details, request_iterator)


def aio_token_interceptors(
    source: TokenSource, *, scope: str = "", audience: str | Iterable[str] = (), attach: bool = True
) -> list[grpc.aio.ClientInterceptor]:
    """Interceptors for a grpc.aio channel, one for each kind of call, as it wants them. A call for which there is no
    token raises what `TokenSource.token` raises. The rest is as for TokenSender."""
    kinds = (AioUnaryUnaryTokens, AioUnaryStreamTokens, AioStreamUnaryTokens, AioStreamStreamTokens)
    return [kind(source, scope=scope, audience=_kept(audience), attach=attach) for kind in kinds]


def _kept(audience: str | Iterable[str]) -> str | tuple[str, ...]:
    """An iterable may be read once only; the audience is needed for each call."""
    return audience if isinstance(audience, str) else tuple(audience)
