"""A grpc.aio server that answers every method of the API with what a test put there, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from artstore.identity.v1 import key_service_pb2, service_account_service_pb2, token_service_pb2
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status

SERVICES = [
    token_service_pb2.DESCRIPTOR.services_by_name["TokenService"],
    service_account_service_pb2.DESCRIPTOR.services_by_name["ServiceAccountService"],
    key_service_pb2.DESCRIPTOR.services_by_name["KeyService"],
]

Answer = Callable[[Any], Message | Awaitable[Message]]


class Refused(Exception):
    """Makes the server answer with this code, and with these details packed in a `google.rpc.Status`."""

    def __init__(self, code: grpc.StatusCode, message: str = "", *details: Message) -> None:
        super().__init__(message)
        self.code, self.message, self.details = code, message, details

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        if not self.details:
            return ()
        status = Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = Packed()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


@dataclass
class Canned:
    """What each method answers, by its name; an empty message by default."""

    target: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    calls: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)

    def named(self, method: str) -> list[tuple[Any, dict[str, Any]]]:
        """The requests that a method got, with their metadata."""
        return [(request, metadata) for name, request, metadata in self.calls if name == method]

    def handler(self, method: Any) -> grpc.RpcMethodHandler:
        request_class, response_class = GetMessageClass(method.input_type), GetMessageClass(method.output_type)

        async def answer(request: Message, context: grpc.aio.ServicerContext) -> Message:
            self.calls.append((method.name, request, dict(context.invocation_metadata() or ())))
            try:
                given = self.answers.get(method.name, lambda _: response_class())(request)
                return given if isinstance(given, Message) else await given
            except Refused as refused:
                await context.abort(refused.code, refused.message, refused.trailing_metadata())

        return grpc.unary_unary_rpc_method_handler(
            answer, request_class.FromString, lambda message: message.SerializeToString()
        )


@asynccontextmanager
async def canned_server() -> AsyncIterator[Canned]:
    canned = Canned()
    server = grpc.aio.server()
    for service in SERVICES:
        handlers = {method.name: canned.handler(method) for method in service.methods if not method.server_streaming}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    canned.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield canned
    await server.stop(None)
