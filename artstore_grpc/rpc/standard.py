"""gRPC's standard services, health and reflection, beside our own.

Their servicers come from gRPC's libraries, and so would their answer to bytes that don't decode: UNKNOWN with the
parser's text. Here it is INVALID_ARGUMENT with our reason, as for every other method. Nor do they pass the pipeline:
their calls are told of here, at `debug`, since probes come each second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from artstore_grpc.call import Call
from artstore_grpc.errors import InvalidRequest
from artstore_grpc.rpc.health import Health
from artstore_grpc.rpc.status import abort
from artstore_grpc.telemetry.lines import CLIENT_GONE, SUCCESS, End, tell
from artstore_grpc.telemetry.logs import Logger

IDLE_SECONDS = 5.0
"""How long a reflection stream may be silent; a tool sends its questions at once."""

NAMES = (health.SERVICE_NAME, reflection.SERVICE_NAME)
"""The services' full names, as reflection lists them."""


LEVEL = "debug"
"""Of their lines."""

Told = Callable[[Any], AbstractContextManager[None]]
"""Around a call, by its context."""


class Lines:
    """The log lines of these calls; `read` makes a Call of a method's name and a context."""

    def __init__(self, read: Callable[[str, Any], Call], logger: Logger) -> None:
        self._read = read
        self._logger = logger

    def of(self, method: str) -> Told:
        @contextmanager
        def told(context: Any) -> Iterator[None]:
            if not self._logger.verbosity.tells(LEVEL):
                yield
                return
            started, end = time.perf_counter(), SUCCESS
            try:
                yield
            except BaseException as error:
                end = CLIENT_GONE if isinstance(error, asyncio.CancelledError | GeneratorExit) else end_of(context)
                raise
            finally:
                tell(self._logger, self._read(method, context), end, time.perf_counter() - started, level=LEVEL)

        return told


def end_of(context: Any) -> End:
    """How a call ended that was aborted; UNKNOWN is what gRPC answers to anything else that is raised."""
    code = context.code()
    name = code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
    return End(name, name)


def add_health(made: grpc.aio.Server, servicer: Health, lines: Lines) -> None:
    """Adds `grpc.health.v1`."""
    health_pb2_grpc.add_HealthServicer_to_server(servicer, Registry(made, lines))


def add_reflection(made: grpc.aio.Server, names: tuple[str, ...], lines: Lines) -> None:
    """Adds server reflection, which lists the services named."""
    servicer = reflection.aio.ReflectionServicer((*names, *NAMES))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, Registry(made, lines))


class Registry:
    """Stands in for the server while a servicer registers, and puts the check in front of each of its methods."""

    def __init__(self, made: grpc.aio.Server, lines: Lines) -> None:
        self._made = made
        self._lines = lines

    def add_generic_rpc_handlers(self, handlers: tuple[Any, ...]) -> None:
        """Nothing: `add_registered_method_handlers` is called with the same methods."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        wrapped = {name: checked(handler, self._lines.of(f"{service}/{name}")) for name, handler in handlers.items()}
        self._made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))


def checked(handler: Any, told: Told) -> Any:
    """The handler, with requests that can't be decoded refused before it."""
    decode, encode = handler.request_deserializer, handler.response_serializer
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(one(decode, handler.unary_unary, told), None, encode)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(one(decode, handler.unary_stream, told), None, encode)
    return grpc.stream_stream_rpc_method_handler(several(decode, handler.stream_stream, told), None, encode)


def one(decode: Callable[[bytes], Any], behavior: Callable[..., Any], told: Told) -> Callable[..., Any]:
    async def handle(data: bytes, context: Any) -> Any:
        with told(context):
            return await behavior(await decoded(decode, data, context), context)

    return handle


def several(decode: Callable[[bytes], Any], behavior: Callable[..., Any], told: Told) -> Callable[..., Any]:
    """Ends a stream on which nothing has come for IDLE_SECONDS: an open one would hold up a drain, and cost memory."""

    async def handle(stream: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        requests = (await decoded(decode, data, context) async for data in prompt(stream))
        with told(context):
            async for answer in behavior(requests, context):
                yield answer

    return handle


async def prompt(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The messages of a stream, until it ends or falls silent."""
    messages = aiter(stream)
    while True:
        try:
            yield await asyncio.wait_for(anext(messages), IDLE_SECONDS)
        except (StopAsyncIteration, TimeoutError):
            return


async def decoded(decode: Callable[[bytes], Any], data: bytes, context: Any) -> Any:
    try:
        return decode(data)
    except DecodeError:
        await abort(context, InvalidRequest("The message can't be decoded.", reason="UNDECODABLE_MESSAGE"))
