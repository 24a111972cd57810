"""Interceptors for gRPC servers: each call's token is verified, a table says who may call what, the handler finds the
caller by `current_caller()`. `AioBearerInterceptor` for grpc.aio, `BearerInterceptor` for threads.

    grpc.aio.server(interceptors=[AioBearerInterceptor(verifier, {"/files.Files/Read": scope("storage.read")})])

A stream ends when its token expires, is revoked, or its key is: under grpc.aio within a second, whatever its
handler waits for; under threads with its next message, since nobody can interrupt a thread. Its client starts it anew
with a new token. A handler of grpc.aio that is no coroutine is not watched. While the service can't be asked whether a
token was revoked, an open stream goes on, unless the verifier's `on_stale` is to refuse.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from contextvars import Context, copy_context
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
from artstore.identity.admission import RETRY_AFTER, Admission, NotAdmitted, Refusal
from artstore.identity.authorization import MethodTable, Rule
from artstore.identity.caller import CALLER, VerifiedToken, calling
from artstore.identity.confirmation import is_bound, presented
from artstore.identity.errors import DETAILS_KEY, DOMAIN
from artstore.identity.verifier import TokenVerifier
from artstore.identity.watching import while_good
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""gRPC's code for what RFC 6750 answers over HTTP."""
HEADER, CHALLENGE = "authorization", "www-authenticate"

Table = MethodTable | Mapping[str, Rule]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Metadata = tuple[tuple[str, str | bytes], ...]


def trailing_metadata(refusal: Refusal) -> Metadata:
    """What goes with a refusal: the challenge of RFC 6750 §3, and a `google.rpc.Status` (AIP-193)."""
    info = ErrorInfo(reason=refusal.reason, domain=DOMAIN)
    if refusal.cause:
        info.metadata["cause"] = refusal.cause
    status = Status(code=CODES[refusal.status].value[0], message=refusal.message, details=[packed(info)])
    if refusal.status == 503:
        retry = RetryInfo()
        retry.retry_delay.FromTimedelta(RETRY_AFTER)
        status.details.append(packed(retry))
    details: Metadata = ((DETAILS_KEY, status.SerializeToString()),)
    return ((CHALLENGE, refusal.challenge), *details) if refusal.challenge else details


def packed(message: Any) -> Packed:
    made = Packed()
    made.Pack(message)
    return made


def authorizations(metadata: Any) -> list[str]:
    return [value for key, value in metadata or () if key == HEADER]


class AioBearerInterceptor(grpc.aio.ServerInterceptor):
    """For grpc.aio. Refuses before the request is read."""

    def __init__(self, verifier: TokenVerifier, table: Table) -> None:
        """`table` as MethodTable has it; raises ValueError."""
        self._admission = Admission(verifier)
        self._table = table if isinstance(table, MethodTable) else MethodTable(table)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler for an admitted call, else one that refuses; None for a method that nobody serves."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        rule = self._table.rule(method)
        if rule is not None and rule.public:
            return handler
        try:
            sent = authorizations(handler_call_details.invocation_metadata)
            caller = await self._admission.admit(rule, sent, method, certificate=None)  # the call's context has it
        except NotAdmitted as refused:
            return refusing(refused.refusal)
        return AdmittedCall(self._admission, caller, method).around(handler)


def refusing(refusal: Refusal) -> Handler:
    """Answers at once. A stream on both sides, since that reads no request first."""

    async def refuse(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await abort(context, refusal)

    return grpc.stream_stream_rpc_method_handler(refuse)


async def abort(context: grpc.aio.ServicerContext[Any, Any], refusal: Refusal) -> NoReturn:
    await context.abort(CODES[refusal.status], refusal.message, trailing_metadata(refusal))
    raise AssertionError("abort raises")


class AdmittedCall:
    """A call under grpc.aio whose caller may make it."""

    def __init__(self, admission: Admission, caller: VerifiedToken, method: str) -> None:
        self._admission = admission
        self._caller = caller
        self._method = method

    def around(self, handler: Handler) -> Handler:
        """The handler, with the caller set for it; a stream is watched besides."""
        behavior, make = parts_of(handler)
        if not (inspect.iscoroutinefunction(behavior) or inspect.isasyncgenfunction(behavior)):
            wrapped: Any = self._in_thread(behavior)  # grpc.aio runs such a one in a thread
        elif handler.response_streaming:
            wrapped = self._streaming(behavior)
        elif handler.request_streaming:
            wrapped = self._collecting(behavior)
        else:
            wrapped = self._single(behavior)
        if is_bound(self._caller):
            wrapped = self._confirmed(wrapped)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _confirmed(self, behavior: Any) -> Any:
        """The same for who has shown the certificate that the token is bound to."""

        def confirm(context: Any) -> Refusal | None:
            try:
                self._admission.confirm(self._caller, presented(context.auth_context()), self._method)
            except NotAdmitted as refused:
                return refused.refusal
            return None

        async def handle(request: Any, context: Any) -> Any:
            refusal = confirm(context)
            return await (abort(context, refusal) if refusal else behavior(request, context))

        def handle_in_thread(request: Any, context: Any) -> Any:
            refusal = confirm(context)
            return refuse(context, refusal) if refusal else behavior(request, context)

        return handle if inspect.iscoroutinefunction(behavior) else handle_in_thread

    def _in_thread(self, behavior: Any) -> Any:
        def handle(request: Any, context: Any) -> Any:
            within = copy_context()
            within.run(CALLER.set, self._caller)
            answer = within.run(behavior, request, context)
            return stepped(answer, within, lambda: None) if isinstance(answer, Iterator) else answer

        return handle

    def _single(self, behavior: Any) -> Any:
        async def handle(request: Any, context: Any) -> Any:
            with calling(self._caller):
                return await behavior(request, context)

        return handle

    def _collecting(self, behavior: Any) -> Any:
        async def handle(requests: Any, context: Any) -> Any:
            with calling(self._caller):
                return await self._while_good(behavior(requests, context), context)

        return handle

    def _streaming(self, behavior: Any) -> Any:
        async def handle(request: Any, context: Any) -> None:
            with calling(self._caller):
                answers = behavior(request, context)
                work = written(answers, context) if hasattr(answers, "__aiter__") else answers
                await self._while_good(work, context)

        return handle

    async def _while_good(self, work: Awaitable[Any], context: Any) -> Any:
        """Does the work; once the token is good no more, ends the call as one that was not admitted."""
        try:
            return await while_good(work, partial(self._admission.still, self._caller, self._method))
        except NotAdmitted as refused:
            refusal = refused.refusal
        return await abort(context, refusal)


async def written(answers: AsyncIterator[Any], context: Any) -> None:
    """Sends what an async generator yields."""
    async with aclosing(answers):  # type: ignore[type-var]  # an async generator has aclose
        async for each in answers:
            await context.write(each)


def parts_of(handler: Handler) -> tuple[Any, Callable[..., Handler]]:
    """What a handler does, and what makes one of its kind."""
    kinds: dict[tuple[bool, bool], tuple[Any, Callable[..., Handler]]] = {
        (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
        (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
        (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
        (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
    }
    return kinds[bool(handler.request_streaming), bool(handler.response_streaming)]


class BearerInterceptor(grpc.ServerInterceptor):
    """For servers with threads. Verifies in the handler's thread: who waits for a key set holds up no other call."""

    def __init__(self, verifier: TokenVerifier, table: Table) -> None:
        """As AioBearerInterceptor."""
        self._admission = Admission(verifier)
        self._table = table if isinstance(table, MethodTable) else MethodTable(table)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler behind one that admits or refuses; None for a method that nobody serves."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)
        rule = self._table.rule(method)
        if rule is not None and rule.public:
            return handler
        behavior, make = parts_of(handler)
        wrapped = self._guarded(behavior, rule, method, handler)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _guarded(self, behavior: Any, rule: Rule | None, method: str, handler: Handler) -> Any:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                sent = authorizations(context.invocation_metadata())
                caller = self._admission.admit_sync(rule, sent, method, presented(context.auth_context()))
            except NotAdmitted as refused:
                refuse(context, refused.refusal)

            def check() -> None:
                try:
                    self._admission.still(caller, method)
                except NotAdmitted as refused:
                    refuse(context, refused.refusal)

            within = copy_context()
            within.run(CALLER.set, caller)
            given = checked(request, check) if handler.request_streaming else request
            answer = within.run(behavior, given, context)
            return stepped(iter(answer), within, check) if handler.response_streaming else answer

        return handle


def refuse(context: grpc.ServicerContext, refusal: Refusal) -> NoReturn:
    context.set_trailing_metadata(trailing_metadata(refusal))
    context.abort(CODES[refusal.status], refusal.message)
    raise AssertionError("abort raises")


def checked(requests: Iterator[Any], check: Callable[[], None]) -> Iterator[Any]:
    """The requests, for as long as the check holds."""
    for each in requests:
        check()
        yield each


def stepped(answers: Iterator[Any], within: Context, check: Callable[[], None]) -> Iterator[Any]:
    """The answers, each made within a context, for as long as the check holds."""
    ended = object()
    try:
        while (each := within.run(next, answers, ended)) is not ended:
            check()
            yield each
    finally:
        close = getattr(answers, "close", None)
        if close is not None:
            within.run(close)
