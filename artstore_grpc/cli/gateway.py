"""`gateway`: the REST gateway alone, in front of a service that runs elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import click
import grpc
from artstore.identity.channels import open_channel

from artstore_grpc.cli import environment
from artstore_grpc.cli.loop import allow_files, quiet_collector, run
from artstore_grpc.cli.serve import ServerCommand, insecure_public_option, settings_with_warnings
from artstore_grpc.cli.session import channel_credentials, target_option, tls_options
from artstore_grpc.settings import InvalidSettings, Settings


@click.command(cls=ServerCommand)
@insecure_public_option
@target_option
@tls_options
def gateway(
    target: str | None,
    insecure_public: bool,
    ca_file: str | None,
    client_certificate: str | None,
    client_certificate_key: str | None,
) -> None:
    """Run the REST gateway alone, until SIGTERM or SIGINT; the service must trust it (ARTSTORE_TRUSTED_PROXIES).

    Of the settings it reads ARTSTORE_GATEWAY_ADDRESS, _TRUSTED_PROXIES, _MAX_CONNECTIONS, _MAX_CONNECTION_AGE,
    _DRAIN_DELAY and _DRAIN_GRACE, those of log and traces, and those of TLS, which are for its own door; how it calls
    the service is said by the options.
    """
    secured = channel_credentials(ca_file, client_certificate, client_certificate_key)
    settings = settings_with_warnings(insecure_public=insecure_public)
    allow_files(settings)
    run(serve_gateway(settings, target or environment.target(), secured))


async def serve_gateway(settings: Settings, target: str, secured: grpc.ChannelCredentials | None) -> None:
    """Serves until a signal, then drains: unready first, and closed after the drain delay."""
    # Imported late: the commands that are clients start without the server's libraries.
    from artstore_grpc import certificates
    from artstore_grpc.app import SERVICE, follow_log_settings, stop_on_signals, tracing
    from artstore_grpc.doors import address_of
    from artstore_grpc.gateway.app import build
    from artstore_grpc.gateway.channel import ChannelBackend
    from artstore_grpc.gateway.server import GatewayServer
    from artstore_grpc.listeners import bind
    from artstore_grpc.parts import utc_now
    from artstore_grpc.telemetry.logs import capture_library_logs, configured

    if settings.gateway_address is None:
        raise InvalidSettings("ARTSTORE_GATEWAY_ADDRESS must be given to run a gateway.")
    certificates.refuse_plain_text(settings, settings.gateway_address)
    logger = configured(settings.log_level, sample=settings.log_sample, colors=environment.colors())
    capture_library_logs(logger)
    files = certificates.of_settings(settings, utc_now, logger)
    stopping, listener = stop_on_signals(), bind(settings.gateway_address)
    async with AsyncExitStack() as stack:
        traces = tracing(settings, f"{SERVICE}-gateway", logger, stack)
        await follow_log_settings(settings, logger, stack)
        channel = await stack.enter_async_context(open_channel(target, secured))
        backend = ChannelBackend(channel)

        async def ready() -> bool:
            return not stopping.is_set() and await backend.ready()

        app = build(backend, ready=ready, trusted_proxies=settings.trusted_proxies, logger=logger, traces=traces)
        context = files.https_context() if files else None
        server = GatewayServer(
            app,
            listener,
            settings.drain_grace,
            context,
            max_connections=settings.max_connections,
            max_age=settings.max_connection_age,
        )
        quiet_collector()
        await server.start()
        bound = address_of(listener)
        logger.info("listening", gateway=str(bound), target=target)
        click.echo(f"The gateway listens on {'https' if files else 'http'}://{bound} and calls {target}.")
        await stopping.wait()
        if traces is not None:
            traces.draining(settings.drain_delay + settings.drain_grace)
        await asyncio.sleep(settings.drain_delay.total_seconds())
        await server.stop()
