"""The pipeline where traces are on: each call is a span, whose parts are those that spans.py is told of."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from artstore_grpc.call import Call
from artstore_grpc.pipeline import Pipeline

if TYPE_CHECKING:  # OpenTelemetry is imported only where traces are on
    from artstore_grpc.telemetry.traces import Traces


class TracedPipeline(Pipeline):
    """A pipeline that has its calls recorded."""

    def __init__(self, traces: Traces, **parts: Any) -> None:
        super().__init__(**parts)
        self._traces = traces

    async def __call__(self, message: Message | bytes, call: Call) -> Message:
        with self._traces.call(call):
            return await super().__call__(message, call)

    async def stream(self, message: Message | bytes, call: Call) -> AsyncGenerator[bytes]:
        with self._traces.stream(call):
            async with contextlib.aclosing(super().stream(message, call)) as answers:
                async for answer in answers:
                    yield answer
