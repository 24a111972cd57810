"""A real OTLP receiver: the collector's gRPC service, on the loopback, which keeps what it is sent."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from tests.processes.service import until

SECONDS = 15.0


@dataclass(frozen=True)
class Span:
    """A span as it arrived; ids in hexadecimal, `parent` empty where it has none."""

    service: str
    name: str
    kind: str
    trace_id: str
    id: str
    parent: str
    attributes: dict[str, Any]
    failed: bool


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """`with Receiver() as it: it.endpoint`. While `hangs` it takes requests and answers none; with `credentials` it
    speaks TLS."""

    def __init__(self, *, hangs: bool = False, credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials = credentials
        self.hangs = hangs
        self.requests: list[pb.ExportTraceServiceRequest] = []
        self.asked = threading.Event()
        self.endpoint = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    async def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> pb.ExportTraceServiceResponse:
        self.asked.set()
        if self.hangs:
            await asyncio.Event().wait()
        self.requests.append(request)
        return pb.ExportTraceServiceResponse()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._server.stop(0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    async def _start(self) -> None:
        self._server = grpc.aio.server()
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        if self._credentials is None:
            self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        else:
            self.endpoint = f"https://127.0.0.1:{self._server.add_secure_port('127.0.0.1:0', self._credentials)}"
        await self._server.start()

    @property
    def said(self) -> bytes:
        """Everything that arrived, as readable text and as it was sent."""
        return b"\n".join(part for each in self.requests for part in (each.SerializeToString(), str(each).encode()))

    @property
    def spans(self) -> list[Span]:
        return [
            span_of(resource, span)
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def of(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def complete(self, trace_id: str, *names: str) -> dict[str, Span]:
        """The spans of a trace by service and name, once the named ones are there; of several of one name the first."""

        def found() -> dict[str, Span] | None:
            spans = {f"{span.service}: {span.name}": span for span in reversed(self.of(trace_id))}
            return spans if spans.keys() >= set(names) else None

        spans: dict[str, Span] = until(found, SECONDS, f"all of {names}")
        return spans


def span_of(resource: Any, span: Any) -> Span:
    return Span(
        service=attributes(resource.resource.attributes)["service.name"],
        name=span.name,
        kind=type(span).SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        attributes=attributes(span.attributes),
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
    )


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
