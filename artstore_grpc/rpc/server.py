"""The gRPC server: raw bytes in, the pipeline, raw bytes out; health and reflection beside it.

Handlers are registered without (de)serialisers, since gRPC itself would answer bytes that don't decode with UNKNOWN
before any of our code runs; and one abort, here, turns an IdentityError into a status.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import grpc
from artstore.identity.confirmation import presented_certificate, thumbprint
from google.protobuf.descriptor import MethodDescriptor

from artstore_grpc.addresses import Network, source_address, trusts
from artstore_grpc.call import Call, correlated
from artstore_grpc.certificates import Certificates, Pair
from artstore_grpc.errors import CannotBind, IdentityError
from artstore_grpc.pipeline import Pipeline
from artstore_grpc.rpc import standard
from artstore_grpc.rpc.descriptors import SERVICES, full_name
from artstore_grpc.rpc.health import Health
from artstore_grpc.rpc.status import abort
from artstore_grpc.settings import Address, Settings
from artstore_grpc.subjects import subjects
from artstore_grpc.telemetry.catalogue import UNKNOWN_METHOD
from artstore_grpc.telemetry.logs import Logger

MAX_RECEIVE_BYTES = 4 * 1024 * 1024
"""gRPC's own bound, past which its core answers RESOURCE_EXHAUSTED; the pipeline's own is far below."""
MAX_METADATA_BYTES = 16 * 1024
MAX_CONCURRENT_STREAMS = 1000
"""Calls open at once on one connection; more wait at the client. It bounds what the pipeline can't see: calls whose
message never comes (RFC 9113 §5.1.2)."""
MAX_PENDING_REQUESTS = 4000
"""Calls that may wait in gRPC's core until this process takes them up, of all connections. By default the core answers
CANCELLED to some past 1,000 and to all past 3,000; here to all past this (ADR 0020)."""
MIN_PING_INTERVAL_MS = 10_000
"""Clients may keep alive every 10 s; less often than any client of ours does, or `too_many_pings` would end it."""

PING_INTERVAL_MS, PING_TIMEOUT_MS = 30_000, 10_000
"""How soon a peer that went away without a word is noticed: its streams would keep their places until then."""

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
    ("grpc.server.max_pending_requests", MAX_PENDING_REQUESTS),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_REQUESTS),
    ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", PING_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
)

KNOWN_METADATA = frozenset(
    {"authorization", "x-forwarded-for", "forwarded", "x-request-id", "traceparent", "tracestate"}
)

CONNECTION_GRACE = timedelta(minutes=1)
"""Beyond the life of a token, which bounds that of a trust feed: how long what is under way on a connection that has
reached its age may go on. A call has less (deadlines.py)."""

Handler = Callable[[bytes, Any], Awaitable[bytes]]
Reader = Callable[[str, Any, tuple[Network, ...]], Call]


def options(settings: Settings) -> list[tuple[str, Any]]:
    """Those of a server with these settings."""
    shared = int(settings.workers > 1)  # else a second server on this port must fail loudly, not take half of it
    made = [*OPTIONS, ("grpc.so_reuseport", shared)]
    if settings.max_connection_age:  # the core adds or takes a tenth by chance
        grace = settings.token_lifetime + CONNECTION_GRACE
        made.append(("grpc.max_connection_age_ms", milliseconds(settings.max_connection_age)))
        made.append(("grpc.max_connection_age_grace_ms", milliseconds(grace)))
    return made


def milliseconds(time: timedelta) -> int:
    return round(time.total_seconds() * 1000)


def server(
    pipeline: Pipeline, health_servicer: Health, settings: Settings, logger: Logger, *, mutual: bool = False
) -> grpc.aio.Server:
    """The server with every method of the policy table, health and reflection; not started, not bound. `mutual`: its
    clients have certificates, which their calls carry."""
    read, trusted = call_with_certificate if mutual else call_of, settings.trusted_proxies
    made = grpc.aio.server(options=options(settings))
    for service in SERVICES:
        handlers: dict[str, Any] = {
            method.name: handler(pipeline, method, trusted, read)
            for method in service.methods
            if full_name(method) in pipeline.methods
        }
        made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    lines = lines_of(trusted, logger)
    standard.add_health(made, health_servicer, lines)
    standard.add_reflection(made, tuple(service.full_name for service in SERVICES), lines)
    made.add_generic_rpc_handlers((Unknown(pipeline, trusted),))  # the last: they are asked in this order
    return made


def lines_of(trusted: tuple[Network, ...], logger: Logger) -> standard.Lines:
    return standard.Lines(lambda method, context: call_of(method, context, trusted), logger)


class Unknown(grpc.GenericRpcHandler):
    """Has the pipeline refuse methods that there aren't, whose names may be anything: grpc.aio would too, without a
    line in the log, and uncounted."""

    def __init__(self, pipeline: Pipeline, trusted: tuple[Network, ...]) -> None:
        self._handle = bound(pipeline, UNKNOWN_METHOD, trusted, call_of)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_stream_rpc_method_handler(self._refuse)  # whatever its caller takes it for

    async def _refuse(self, _messages: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await self._handle(b"", context)


def handler(pipeline: Pipeline, method: MethodDescriptor, trusted: tuple[Network, ...], read: Reader) -> Any:
    """What gRPC calls for a method."""
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(bound_stream(pipeline, full_name(method), trusted, read))
    return grpc.unary_unary_rpc_method_handler(bound(pipeline, full_name(method), trusted, read))


def health_server(pipeline: Pipeline, health_servicer: Health, settings: Settings, logger: Logger) -> grpc.aio.Server:
    """A server of `grpc.health.v1` alone; the pipeline refuses everything else."""
    made = grpc.aio.server(options=options(settings))
    standard.add_health(made, health_servicer, lines_of((), logger))
    made.add_generic_rpc_handlers((Unknown(pipeline, ()),))
    return made


def bind(
    made: grpc.aio.Server, address: Address, certificates: Certificates | None = None, *, mutual: bool = False
) -> Address:
    """Binds an address and returns it as bound; without certificates in plain text. `mutual`: clients must have one
    too. Raises CannotBind."""
    try:
        if certificates is None:
            port = made.add_insecure_port(str(address))
        else:
            port = made.add_secure_port(str(address), credentials(certificates, mutual=mutual))
    except RuntimeError:
        port = 0
    if not port:
        raise CannotBind(f"Can't listen on {address}: the port is taken, or the address isn't this machine's.")
    return Address(host=address.host, port=port)


def credentials(certificates: Certificates, *, mutual: bool) -> grpc.ServerCredentials:
    """TLS 1.2 and later, as gRPC's core has it; each new connection is given the pair that is then in use."""
    used: list[Pair] = [certificates.current()]

    def changed() -> grpc.ServerCertificateConfiguration | None:
        pair = certificates.current()
        if pair is used[0]:
            return None
        used[0] = pair
        return configuration(pair, mutual=mutual)

    return grpc.dynamic_ssl_server_credentials(
        configuration(used[0], mutual=mutual),
        changed,  # type: ignore[arg-type]  # None means no change, as its documentation says and its types don't
        mutual,
    )


def configuration(pair: Pair, *, mutual: bool) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pair.key, pair.chain)], root_certificates=pair.client_ca if mutual else None
    )


def bound(pipeline: Pipeline, method: str, trusted: tuple[Network, ...], read: Reader) -> Handler:
    """A handler that passes raw bytes to the pipeline."""

    async def handle(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        call = read(method, context, trusted)
        try:
            return (await pipeline(data, call)).SerializeToString()
        except IdentityError as error:
            refused = error
        return await abort(context, refused)

    return handle


def bound_stream(
    pipeline: Pipeline, method: str, trusted: tuple[Network, ...], read: Reader
) -> Callable[..., Awaitable[None]]:
    """As `bound`, for a method that answers by a stream. gRPC's flow control has it wait for a slow reader, with one
    message in hand; gRPC can end such a call by its connection only, so that it counts as a stream until it ends."""

    async def handle(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        call = read(method, context, trusted)
        try:
            async with contextlib.aclosing(pipeline.stream(data, call)) as answers:
                async for answer in answers:
                    await context.write(answer)
            return
        except IdentityError as error:
            refused = error
        await abort(context, refused)

    return handle


def call_of(method: str, context: grpc.aio.ServicerContext[Any, Any], trusted: tuple[Network, ...]) -> Call:
    """What the metadata say of a call."""
    metadata: dict[str, list[str]] = {}
    for key, value in context.invocation_metadata() or ():
        if key in KNOWN_METADATA:
            metadata.setdefault(key, []).append(value if isinstance(value, str) else "")
    peer = peer_address(context.peer())
    call = Call(method=method, source=peer, peer=peer, timeout_seconds=context.time_remaining())
    if trusted:
        forwarded = metadata.get("x-forwarded-for", []) + metadata.get("forwarded", [])
        call.source = source_address(peer, forwarded, trusted)
    if metadata:
        authorization = metadata.get("authorization")
        call.authorization = ", ".join(authorization) if authorization else None
        if "x-request-id" in metadata or "traceparent" in metadata:
            state = ",".join(metadata.get("tracestate", ()))
            correlated(call, metadata.get("x-request-id", [""])[0], metadata.get("traceparent", [""])[0], state)
    return call


def call_with_certificate(
    method: str, context: grpc.aio.ServicerContext[Any, Any], trusted: tuple[Network, ...]
) -> Call:
    """As `call_of`, on the listener that demands certificates. A trusted proxy's is not its callers'."""
    call = call_of(method, context, trusted)
    if not trusts(call.peer, trusted):
        certificate = presented_certificate(context.auth_context())
        if certificate:
            call.certificate, call.subjects = thumbprint(certificate), subjects(certificate)
    return call


@lru_cache(maxsize=4096)
def peer_address(peer: str) -> str:
    """The address in gRPC's name of a peer: `ipv4:1.2.3.4:5`, `ipv6:%5B::1%5D:5`; a UNIX socket is `unix`. Remembered,
    since a connection's calls all come from one."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    return source_address(unquote(rest).rpartition(":")[0].strip("[]"), (), ())
