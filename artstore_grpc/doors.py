"""The doors of a process: gRPC, the gateway, the probes' own port, the metrics; opened and drained together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from artstore_grpc.certificates import Certificates
from artstore_grpc.gateway.app import build
from artstore_grpc.gateway.server import GatewayServer
from artstore_grpc.pipeline import Pipeline
from artstore_grpc.rpc import server
from artstore_grpc.rpc.health import Health
from artstore_grpc.settings import Address, Settings
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.telemetry.metrics import Metrics, serve_metrics
from artstore_grpc.watches import Watches

if TYPE_CHECKING:  # OpenTelemetry is imported only where traces are on
    from artstore_grpc.telemetry.traces import Traces


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the doors are, as bound; None for one that there isn't."""

    grpc: Address
    gateway: Address | None
    metrics: Address | None
    health: Address | None
    mtls: Address | None


class Doors:
    """Binds at once, so that a taken port is refused before anything is served. Raises CannotBind."""

    def __init__(
        self,
        settings: Settings,
        *,
        gateway: socket.socket | None,
        pipeline: Pipeline,
        health: Health,
        watches: Watches,
        metrics: Metrics,
        logger: Logger,
        stack: AsyncExitStack,
        certificates: Certificates | None,
        traces: Traces | None = None,
    ) -> None:
        self._health = health
        self._logger = logger
        self._watches = watches
        self._delay_seconds = settings.drain_delay.total_seconds()
        self._grace_seconds = settings.drain_grace.total_seconds()
        self._rpc = [server.server(pipeline, health, settings, logger)]
        bound = server.bind(self._rpc[0], settings.grpc_address, certificates)
        mutual = None
        if settings.grpc_mtls_address is not None:
            self._rpc.append(server.server(pipeline, health, settings, logger, mutual=True))
            mutual = server.bind(self._rpc[-1], settings.grpc_mtls_address, certificates, mutual=True)
        probes = self._probes(settings, pipeline)
        self._gateway = None
        if gateway is not None:
            app = build(
                pipeline,
                ready=self._ready,
                trusted_proxies=settings.trusted_proxies,
                logger=logger,
                token_refused=metrics.token_refused,
                traces=traces,
            )
            self._gateway = GatewayServer(
                app,
                gateway,
                settings.drain_grace,
                certificates.https_context() if certificates else None,
                max_connections=settings.max_connections,
                max_age=settings.max_connection_age,
            )
        self.addresses = Addresses(
            bound, address_of(gateway), serve_metrics(settings.metrics_address, metrics.registry, stack), probes, mutual
        )

    async def open(self) -> None:
        for each in self._rpc:
            await each.start()
        if self._gateway is not None:
            await self._gateway.start()

    async def drain(self, within: timedelta | None = None) -> None:
        """Readiness goes first; calls in flight finish within the grace; open streams don't hold that up. `within`: the
        doors close at once, since others are open at the same addresses, and calls in flight have that long."""
        delay, grace = self._delay_seconds, self._grace_seconds
        if within is not None:
            delay, grace = 0.0, within.total_seconds()
        known_as_ready = self._health.ready  # otherwise no balancer has to notice: a refused start ends at once
        await self._health.drain()
        if known_as_ready:
            await asyncio.sleep(delay)
        self._health.end_watches()
        self._watches.end()
        closing: list[Awaitable[None]] = [each.stop(grace) for each in self._rpc]
        if self._gateway is not None:
            closing.append(self._gateway.stop(grace))
        await asyncio.gather(*closing)

    def _probes(self, settings: Settings, pipeline: Pipeline) -> Address | None:
        if settings.health_address is None:
            return None
        self._rpc.append(server.health_server(pipeline, self._health, settings, self._logger))
        return server.bind(self._rpc[-1], settings.health_address)

    async def _ready(self) -> bool:
        return self._health.ready


def address_of(bound: socket.socket | None) -> Address | None:
    """Where a socket is bound."""
    if bound is None:
        return None
    host, port = bound.getsockname()[:2]
    return Address(host=host, port=port)
