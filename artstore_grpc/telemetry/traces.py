"""Traces: OpenTelemetry's spans of the calls that are sampled, sent by OTLP over gRPC. Imported only where they are on.

Whether a call is recorded is decided once, where it comes in: a caller's W3C `traceparent` is obeyed, within
FORCED_A_SECOND, and of calls without one a share is. What is not recorded costs no more than its trace's id. Spans wait
in a bounded queue for a thread that sends them; a receiver that is down or hangs costs spans, never a call.
Attributes are named by the semantic conventions; a URL's path, messages of exceptions and SQL's values are in none.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import Token
from datetime import timedelta
from importlib.metadata import version
from threading import Thread
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from artstore_grpc.call import Call
from artstore_grpc.errors import OUTCOMES, IdentityError
from artstore_grpc.spans import CURRENT, NOTHING, Attributes, Span, nothing
from artstore_grpc.telemetry.logs import Logger

FORCED_A_SECOND = 100
"""Calls that are recorded because their `traceparent` says so, of one process: any stranger can send one. Past it the
share of all others decides."""
MAX_QUEUE = 2048
"""Spans that wait to be sent; further ones are dropped. About 4 MB."""
MAX_BATCH = 512
SEND_INTERVAL = timedelta(seconds=2)
SEND_TIMEOUT = timedelta(seconds=5)
"""For one batch, with what is tried again."""
LAST_SECONDS = 1.0
"""For the last batch of a process that ends without having drained, or has no grace left."""
MAX_ATTRIBUTES, MAX_ATTRIBUTE_CHARACTERS = 32, 256

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The codes that make a server's span an error (OpenTelemetry, semantic conventions for gRPC); others are the caller's
doing."""
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"


class Traces:
    """What records calls. `service` is its name as traces have it, `ratio` the share of calls without a parent that it
    records (0 to 1)."""

    def __init__(self, endpoint: str, *, ratio: float, service: str, environment: str, logger: Logger) -> None:
        """`endpoint`: `http://host:port` in plain text, `https://host:port` by TLS."""
        self._ratio = ratio
        self._logger = logger
        self._forced = Allowance(FORCED_A_SECOND)
        self._until: float | None = None
        self._exporter = OTLPSpanExporter(
            endpoint, insecure=endpoint.startswith("http://"), timeout=SEND_TIMEOUT.total_seconds()
        )
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=MAX_QUEUE,
            max_export_batch_size=MAX_BATCH,
            schedule_delay_millis=SEND_INTERVAL.total_seconds() * 1000,
        )
        resource = {
            "service.name": service,
            "service.version": version("artstore-grpc"),
            "service.instance.id": str(uuid.uuid4()),
            "deployment.environment.name": environment,
        }
        limits = SpanLimits(max_attributes=MAX_ATTRIBUTES, max_attribute_length=MAX_ATTRIBUTE_CHARACTERS)
        provider = TracerProvider(ALWAYS_ON, Resource.create(resource), shutdown_on_exit=False, span_limits=limits)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("artstore_grpc", version("artstore-grpc"), SCHEMA_URL)

    def request(self, call: Call, method: str, route: str) -> AbstractContextManager[Recorded | None]:
        """An HTTP request; `method` and `route` as the log has them."""
        if not self._samples(call):
            CURRENT.set(None)  # one that came behind another over its connection began in that one's context
            return NOTHING
        attributes = {"http.request.method": method, "http.route": route, "client.address": call.source}
        return self._entered(call, f"{method} {route}", attributes, Recorded)

    def call(self, call: Call) -> AbstractContextManager[Span | None]:
        """A call of the API: of a gRPC client, or what an HTTP request of this process became."""
        current = CURRENT.get()
        if isinstance(current, Recorded):
            span = current.start(call.method, rpc(call), SpanKind.INTERNAL)
            return RecordedCall(self._tracer, span, current.root, call)
        if not self._samples(call):
            return NOTHING
        return self._entered(call, call.method, rpc(call) | {"client.address": call.source}, RecordedCall)

    def stream(self, call: Call) -> AbstractContextManager[Span | None]:
        """As `call`, for a method that answers by a stream."""
        if not self._samples(call):
            return NOTHING
        return self._entered(call, call.method, rpc(call) | {"client.address": call.source}, RecordedStream)

    def _entered(self, call: Call, name: str, attributes: Attributes, kind: type[Recorded]) -> Recorded:
        """The first span of a call in this process."""
        parent = remote(call.traceparent) if call.traceparent else None
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, {**attributes, REQUEST_ID: call.request_id})
        recorded = kind(self._tracer, span, None, call)
        call.traceparent = recorded.traceparent
        return recorded

    def _samples(self, call: Call) -> bool:
        """Whether to record a call, which has a trace's id from here on, and says onwards what was decided."""
        forced = call.traceparent[-1:] in ODD
        if call.traceparent and not forced:
            return False
        if (forced and self._forced.take()) or random.random() < self._ratio:  # noqa: S311 - nothing depends on it
            return True
        trace_id = call.trace_id or f"{random.getrandbits(128) or 1:032x}"
        call.traceparent = f"00-{trace_id}-{random.getrandbits(64) or 1:016x}-00"
        return False

    def draining(self, grace: timedelta) -> None:
        """From now on the last spans have so long."""
        self._until = asyncio.get_running_loop().time() + grace.total_seconds()

    async def close(self) -> None:
        """Sends what waits, within what is left of the grace, or LAST_SECONDS if that is more; the rest is lost."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()
        last = loop.time() + LAST_SECONDS

        def send() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(sent.set)

        Thread(target=send, name="last spans", daemon=True).start()  # one that hangs must not hold up the process's end
        try:
            async with asyncio.timeout_at(last if self._until is None else max(last, self._until)):
                await sent.wait()
        except TimeoutError:
            self._exporter.shutdown()
            self._logger.warning("spans lost", cause="their receiver does not answer")


REQUEST_ID = "artstore.request_id"
CLIENT_ID = "artstore.client_id"
ODD = frozenset("13579bdf")
"""Last digits of flags that say that a trace is recorded (W3C Trace Context §3.2.2.5.1)."""


class Recorded:
    """A span of OpenTelemetry's that is current within its `with`. The first of a call has no `root`; others know that
    one, to end with it: a task that a call has started may go on for ever."""

    def __init__(
        self, tracer: trace.Tracer, span: trace.Span, root: Recorded | None = None, call: Call | None = None
    ) -> None:
        self._tracer = tracer
        self._span = span
        self._call = call
        self._token: Token[Span | None] | None = None
        self.root = root or self
        self.ended = False

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def set(self, name: str, value: str | int) -> None:
        self._span.set_attribute(name, value)

    def start(self, name: str, attributes: Attributes, kind: SpanKind) -> trace.Span:
        return self._tracer.start_span(name, trace.set_span_in_context(self._span), kind, attributes)

    def child(self, name: str, attributes: Attributes, *, client: bool) -> AbstractContextManager[Span | None]:
        if self.root.ended:
            return NOTHING
        span = self.start(name, attributes, SpanKind.CLIENT if client else SpanKind.INTERNAL)
        return Recorded(self._tracer, span, self.root)

    def queued(self, name: str) -> Callable[[], None]:
        return nothing if self.root.ended else self.start(name, {}, SpanKind.INTERNAL).end

    def answered(self, status: int | None) -> None:
        """How an HTTP request ended; None: nobody was there any more."""
        if status is None:
            self.set("error.type", "CLIENT_GONE")
            return
        self.set("http.response.status_code", status)
        if status >= 500:
            self.fail(str(status))

    def fail(self, kind: str) -> None:
        """Marks it as an error, by what kind of one, never by its message."""
        self.set("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def __enter__(self) -> Self:
        self._token = CURRENT.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            with contextlib.suppress(ValueError):  # a generator that was closed by the collector, elsewhere
                CURRENT.reset(self._token)
        self.finish(error)
        self.ended = True
        self._span.end()

    def finish(self, error: BaseException | None) -> None:
        """What its end adds to it."""
        if isinstance(error, IdentityError):
            self.set("rpc.response.status_code", OUTCOMES[type(error)].grpc)
            self.fail(error.reason)
        elif error is not None:
            self.fail(type(error).__qualname__)


class RecordedCall(Recorded):
    """The span of a call of the API, which ends with its code and who it was."""

    def finish(self, error: BaseException | None) -> None:
        code = OUTCOMES[type(error)].grpc if isinstance(error, IdentityError) else "CANCELLED" if error else "OK"
        self.set("rpc.response.status_code", code)
        if self._call is not None and self._call.caller is not None:
            self.set(CLIENT_ID, self._call.caller.account.client_id)
        if error is not None:
            kind = error.reason if isinstance(error, IdentityError) else type(error).__qualname__
            if code in SERVER_FAULTS:
                self.fail(kind)
            else:
                self.set("error.type", kind)


class RecordedStream(RecordedCall):
    """As that, for a stream: it is current in no context, since a generator leaves its own at each answer."""

    def __enter__(self) -> Self:
        return self

    def finish(self, error: BaseException | None) -> None:
        """That its caller goes away is its ordinary end."""
        super().finish(None if isinstance(error, asyncio.CancelledError | GeneratorExit) else error)


class Allowance:
    """So many a second on average, and as many at once."""

    def __init__(self, a_second: float) -> None:
        self._a_second = self._left = a_second
        self._time = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._a_second, self._left + (now - self._time) * self._a_second)
        self._time = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def rpc(call: Call) -> dict[str, str]:
    """What a call of the API is."""
    return {"rpc.system.name": "grpc", "rpc.method": call.method}


def remote(traceparent: str) -> Context:
    """The caller's span as the parent of ours."""
    _, trace_id, span_id, _ = traceparent.split("-")
    context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=SAMPLED)
    return trace.set_span_in_context(NonRecordingSpan(context))
