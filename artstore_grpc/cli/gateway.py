"""`gateway`: the REST gateway alone, in front of a service that runs elsewhere."""

from __future__ import annotations

import asyncio
import gc
import socket

import click
from artstore.identity.connection import open_channel

from artstore_grpc.cli import environment
from artstore_grpc.cli.loop import run
from artstore_grpc.cli.serve import ServerCommand, settings_with_warnings
from artstore_grpc.cli.session import target_option
from artstore_grpc.settings import Address, InvalidSettings, Settings


@click.command(cls=ServerCommand)
@target_option
def gateway(target: str | None) -> None:
    """Run the REST gateway alone, until SIGTERM or SIGINT; the service must trust it (ARTSTORE_TRUSTED_PROXIES).

    Of the settings it reads ARTSTORE_GATEWAY_ADDRESS, _TRUSTED_PROXIES, _LOG_LEVEL, _DRAIN_DELAY and _DRAIN_GRACE.
    """
    run(serve_gateway(settings_with_warnings(), target or environment.target()))


COLLECTIONS = (10_000, 20, 50)
"""Each call of a gRPC client leaves a cycle of objects behind. By Python's own thresholds (700, 10, 10) the collector
looks for them every dozen calls, which is a twentieth of what a token costs here; by these every few hundred."""


async def serve_gateway(settings: Settings, target: str) -> None:
    """Serves until a signal, then drains: unready first, and closed after the drain delay."""
    # Imported late: the commands that are clients start without the server's libraries.
    from artstore_grpc.app import stop_on_signals
    from artstore_grpc.gateway.app import build
    from artstore_grpc.gateway.channel import ChannelBackend
    from artstore_grpc.gateway.server import GatewayServer, bind
    from artstore_grpc.telemetry.logs import configured

    if settings.gateway_address is None:
        raise InvalidSettings("ARTSTORE_GATEWAY_ADDRESS must be given to run a gateway.")
    stopping, listener = stop_on_signals(), bind(settings.gateway_address)
    async with open_channel(target) as channel:
        backend = ChannelBackend(channel)

        async def ready() -> bool:
            return not stopping.is_set() and await backend.ready()

        logger = configured(settings.log_level)
        app = build(backend, ready=ready, trusted_proxies=settings.trusted_proxies, logger=logger)
        server = GatewayServer(app, listener, grace=settings.drain_grace)
        gc.freeze()  # what is there by now stays: no collection need look at it
        gc.set_threshold(*COLLECTIONS)
        await server.start()
        click.echo(f"The gateway listens on http://{bound(listener)} and calls {target}.")
        await stopping.wait()
        await asyncio.sleep(settings.drain_delay.total_seconds())
        await server.stop()


def bound(listener: socket.socket) -> Address:
    """Where it listens, with the port that it got."""
    host, port = listener.getsockname()[:2]
    return Address(host=host, port=port)
