"""The gRPC server: raw bytes in, the method under the authority's lock, raw bytes out.

It is grpc's server of threads, not grpc.aio: one server serves tests with and without an event loop, a fixture of a
whole session outlives the loops of its tests, and a test that calls by blocking doesn't keep its own answer waiting.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc
from artstore.identity.errors import DETAILS_KEY, IdentityError
from artstore.identity.retries import PUSHBACK_KEY
from artstore.identity.testing.accounts import Caller
from artstore.identity.testing.faults import Fault, Faults
from artstore.identity.testing.methods import SERVICES, Call, Methods
from artstore.identity.testing.parts import Parts
from artstore.identity.testing.refusals import Refused, refused, status_of
from google.protobuf.descriptor import MethodDescriptor

MAX_THREADS = 256
"""Calls at once; each open trust feed, and each call that a `delay` holds, takes one."""
HEARTBEAT_SECONDS = 1.0
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.so_reuseport", 0),
    # Clients keep alive more often than grpc's servers allow by default.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)

NO_RETRY = (PUSHBACK_KEY, "-1")
"""Beside every failure: what a test plans to go wrong does, once for each time, and isn't mended by a retry."""

Context = grpc.ServicerContext


class Server:
    """The server of one authority."""

    def __init__(self, parts: Parts, faults: Faults, credentials: grpc.ServerCredentials | None) -> None:
        self._parts = parts
        self._faults = faults
        self._methods = Methods(parts)
        self.denials: dict[str, str] = {}
        """Why an authentication was denied, by `denial_id`."""
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="fake-authority")
        self._server = grpc.server(self._threads, options=OPTIONS)
        for service in SERVICES:
            handlers = {method.name: self._handler(method) for method in service.methods}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """Ends every call and every stream, and waits for their threads."""
        with self._parts.changed:
            self._faults.stopped = True
            self._parts.changed.notify_all()
        self._server.stop(None).wait()
        self._threads.shutdown()

    def _handler(self, method: MethodDescriptor) -> grpc.RpcMethodHandler[bytes, bytes]:
        def answer(data: bytes, context: Context) -> bytes:
            try:
                return self._answered(method, data, context)
            except IdentityError as error:
                self._refuse(context, error)

        def follow(data: bytes, context: Context) -> Iterator[bytes]:
            try:
                yield from self._followed(method, data, context)
            except IdentityError as error:
                self._refuse(context, error)

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(follow)
        return grpc.unary_unary_rpc_method_handler(answer)

    def _answered(self, method: MethodDescriptor, data: bytes, context: Context) -> bytes:
        with self._parts.changed:
            self._meet(method, context)
            row, message, caller = self._methods.admitted(method, data, call_of(context))
            assert row.run is not None
            return row.run(message, caller).SerializeToString()

    def _meet(self, method: MethodDescriptor, context: Context) -> None:
        fault = self._faults.met(method.name)
        if fault is not None:
            fail(context, fault)

    def _followed(self, method: MethodDescriptor, data: bytes, context: Context) -> Iterator[bytes]:
        """WatchTrust: a snapshot or what was missed, then every change, and a heartbeat each second."""
        changed, trust, call = self._parts.changed, self._parts.trust, call_of(context)
        context.add_callback(self._parts.wake)
        with changed:
            self._meet(method, context)
            _, request, caller = self._methods.admitted(method, data, call)
            trust.require(request.after_sequence, request.after_hash)
            sequence, beginning = request.after_sequence or trust.head.sequence, []
            if not request.after_sequence:
                beginning = list(trust.snapshot())
        yield from (chunk.SerializeToString() for chunk in beginning)
        while True:
            with changed:
                self._check(context, call, caller)
                message = trust.since(sequence)
                sequence = message.sequence
            yield message.SerializeToString()
            with changed:
                self._rest(context, call, caller, sequence)

    def _rest(self, context: Context, call: Call, caller: Caller | None, sequence: int) -> None:
        """Until there is something to tell, or a heartbeat is due."""

        def due() -> bool:
            return self._parts.trust.head.sequence != sequence or not self._goes_on(context, call, caller)

        self._parts.changed.wait_for(due, HEARTBEAT_SECONDS)

    def _goes_on(self, context: Context, call: Call, caller: Caller | None) -> bool:
        faults = self._faults
        good = caller is not None and self._parts.callers.still_good(caller, call.authorization)
        return context.is_active() and good and not (faults.stopped or faults.down)

    def _check(self, context: Context, call: Call, caller: Caller | None) -> None:
        """Ends a stream whose time has come."""
        if self._faults.stopped:
            raise refused("UNAVAILABLE", "This server is stopping; go on at another one.", reason="STOPPING")
        if self._faults.down:
            fail(context, grpc.StatusCode.UNAVAILABLE)
        if caller is None or not self._parts.callers.still_good(caller, call.authorization):
            cause = "the stream's token has expired, or is refused by now"
            raise refused("INVALID_TOKEN", reason="TOKEN_ENDED", cause=cause)

    def _refuse(self, context: Context, error: IdentityError) -> NoReturn:
        if isinstance(error, Refused) and error.denial_id:
            self.denials[error.denial_id] = error.cause
        context.set_trailing_metadata((NO_RETRY, (DETAILS_KEY, status_of(error).SerializeToString())))
        context.abort(error.code, error.message)


def fail(context: Context, fault: Fault) -> NoReturn:
    """Ends a call as a test wants it."""
    if isinstance(fault, IdentityError):
        raise fault
    context.set_trailing_metadata((NO_RETRY,))
    context.abort(fault, "The fake authority was told to fail.")


def call_of(context: Context) -> Call:
    """What the metadata say of a call."""
    found = [str(value) for key, value in context.invocation_metadata() or () if key == "authorization"]
    return Call(", ".join(found) if found else None, context.peer().rpartition(":")[0].partition(":")[2])
