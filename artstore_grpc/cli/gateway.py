"""`gateway`: the REST gateway alone, in front of a service that runs elsewhere."""

from __future__ import annotations

import asyncio

import click
import grpc
from artstore.identity.connection import open_channel
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from artstore_grpc.cli import environment
from artstore_grpc.cli.loop import run
from artstore_grpc.cli.serve import ServerCommand, settings_with_warnings
from artstore_grpc.cli.session import target_option
from artstore_grpc.settings import InvalidSettings, Settings

READINESS = "readiness"
READINESS_SECONDS = 2.0
"""How long the service may take to say that it is ready; probes wait hardly longer."""


@click.command(cls=ServerCommand)
@target_option
def gateway(target: str | None) -> None:
    """Run the REST gateway alone, until SIGTERM or SIGINT; the service must trust it (ARTSTORE_TRUSTED_PROXIES).

    Of the settings it reads ARTSTORE_GATEWAY_ADDRESS, _TRUSTED_PROXIES, _DRAIN_DELAY and _DRAIN_GRACE.
    """
    run(serve_gateway(settings_with_warnings(), target or environment.target()))


async def serve_gateway(settings: Settings, target: str) -> None:
    """Serves until a signal, then drains: unready first, and closed after the drain delay."""
    # Imported late: the commands that are clients start without the server's libraries.
    from artstore_grpc.app import stop_on_signals
    from artstore_grpc.gateway.app import build
    from artstore_grpc.gateway.channel import ChannelBackend
    from artstore_grpc.gateway.server import GatewayServer, bind

    if settings.gateway_address is None:
        raise InvalidSettings("ARTSTORE_GATEWAY_ADDRESS must be given to run a gateway.")
    stopping = stop_on_signals()
    sock = bind(settings.gateway_address)
    async with open_channel(target) as channel:

        async def ready() -> bool:
            return not stopping.is_set() and await is_ready(channel)

        app = build(ChannelBackend(channel), ready=ready, trusted_proxies=settings.trusted_proxies)
        server = GatewayServer(app, sock, grace=settings.drain_grace)
        await server.start()
        host, port = sock.getsockname()[:2]
        click.echo(f"The gateway listens on http://{f'[{host}]' if ':' in host else host}:{port}, before {target}.")
        await stopping.wait()
        await asyncio.sleep(settings.drain_delay.total_seconds())
        await server.stop()


async def is_ready(channel: grpc.aio.Channel) -> bool:
    """Whether the service says that it is ready; one that can't be asked is not."""
    try:
        answer = await HealthStub(channel).Check(HealthCheckRequest(service=READINESS), timeout=READINESS_SECONDS)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == HealthCheckResponse.SERVING)
