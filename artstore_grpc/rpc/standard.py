"""gRPC's standard services, health and reflection, beside our own.

Their servicers come from gRPC's libraries, and so would their answer to bytes that don't decode: UNKNOWN with the
parser's text. Here it is INVALID_ARGUMENT with our reason, as for every other method.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from artstore_grpc.errors import InvalidRequest
from artstore_grpc.rpc.health import Health
from artstore_grpc.rpc.status import abort

IDLE_SECONDS = 5.0
"""How long a reflection stream may be silent; a tool sends its questions at once."""

NAMES = (health.SERVICE_NAME, reflection.SERVICE_NAME)
"""The services' full names, as reflection lists them."""


def add_health(made: grpc.aio.Server, servicer: Health) -> None:
    """Adds `grpc.health.v1`."""
    health_pb2_grpc.add_HealthServicer_to_server(servicer, Registry(made))


def add_reflection(made: grpc.aio.Server, names: tuple[str, ...]) -> None:
    """Adds server reflection, which lists the services named."""
    servicer = reflection.aio.ReflectionServicer((*names, *NAMES))
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, Registry(made))


class Registry:
    """Stands in for the server while a servicer registers, and puts the check in front of each of its methods."""

    def __init__(self, made: grpc.aio.Server) -> None:
        self._made = made

    def add_generic_rpc_handlers(self, handlers: tuple[Any, ...]) -> None:
        """Nothing: `add_registered_method_handlers` is called with the same methods."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        wrapped = {name: checked(handler) for name, handler in handlers.items()}
        self._made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))


def checked(handler: Any) -> Any:
    """The handler, with requests that can't be decoded refused before it."""
    decode, encode = handler.request_deserializer, handler.response_serializer
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(one(decode, handler.unary_unary), None, encode)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(one(decode, handler.unary_stream), None, encode)
    return grpc.stream_stream_rpc_method_handler(several(decode, handler.stream_stream), None, encode)


def one(decode: Callable[[bytes], Any], behavior: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(data: bytes, context: Any) -> Any:
        return await behavior(await decoded(decode, data, context), context)

    return handle


def several(decode: Callable[[bytes], Any], behavior: Callable[..., Any]) -> Callable[..., Any]:
    """Ends a stream on which nothing has come for IDLE_SECONDS: an open one would hold up a drain, and cost memory."""

    async def handle(stream: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
        requests = (await decoded(decode, data, context) async for data in prompt(stream))
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
