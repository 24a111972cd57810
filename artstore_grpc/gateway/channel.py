"""A Backend behind a gRPC channel, for a gateway that runs alone.

The caller's address travels as `x-forwarded-for`, so the server has to name this gateway in `TRUSTED_PROXIES`; errors
come back as the classes they were, by `rpc/status.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from artstore_grpc.call import Call
from artstore_grpc.errors import IdentityError, Unavailable, Unimplemented
from artstore_grpc.rpc.descriptors import full_name, walked
from artstore_grpc.rpc.health import READINESS
from artstore_grpc.rpc.status import DETAILS_KEY, from_status
from artstore_grpc.spans import span

READY_SECONDS = 2.0
"""How long the server may take to say that it is ready."""


class ChannelBackend:
    """Answers calls by asking a server. Raises what the server raised, Unavailable where there is none."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stubs: dict[str, Callable[..., Any]] = {
            full_name(method): channel.unary_unary(
                f"/{full_name(method)}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            for method in walked()
            if not method.server_streaming
        }
        self._health = health_pb2_grpc.HealthStub(channel)

    async def __call__(self, message: Message, call: Call) -> Message:
        stub = self._stubs.get(call.method)
        if stub is None:
            raise Unimplemented
        with span(call.method, {"rpc.system.name": "grpc", "rpc.method": call.method}, client=True) as current:
            metadata = metadata_of(call, current.traceparent if current is not None else call.traceparent)
            try:
                answer: Message = await stub(message, metadata=metadata, timeout=call.timeout_seconds)
            except grpc.aio.AioRpcError as error:
                raise identity_error(error) from None
            except grpc.aio.UsageError:
                raise Unavailable(cause="the channel is closed") from None
            if current is not None:
                current.set("rpc.response.status_code", "OK")
            return answer

    async def ready(self) -> bool:
        """Whether the server says that it is ready; not being reachable is not being ready."""
        request = health_pb2.HealthCheckRequest(service=READINESS)
        try:
            answer = await self._health.Check(request, timeout=READY_SECONDS)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError):
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def metadata_of(call: Call, traceparent: str) -> grpc.aio.Metadata:
    """What the server is told of a call besides its message; `traceparent` is the span that asks it."""
    told = {
        "authorization": call.authorization,
        "x-forwarded-for": call.source,
        "x-request-id": call.request_id,
        "traceparent": traceparent,
        "tracestate": call.tracestate,
    }
    return grpc.aio.Metadata(*[(name, value) for name, value in told.items() if value])


def identity_error(error: grpc.aio.AioRpcError) -> IdentityError:
    return from_status(error.code(), status_of(error), error.details() or "")


def status_of(error: grpc.aio.AioRpcError) -> Status | None:
    """The status that came with an error; None where it is not ours, or can't be read."""
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS_KEY:
            try:
                return Status.FromString(value)
            except (DecodeError, TypeError):
                return None
    return None
