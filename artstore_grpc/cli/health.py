"""`health`: whether the service is serving, by exit code, for probes and scripts."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import click
import grpc
from artstore.identity import IdentityError, NotFound
from artstore.identity.channels import CHANNEL_OPTIONS
from artstore.identity.errors import from_rpc_error
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from artstore_grpc.cli import environment
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.failures import TARGET
from artstore_grpc.cli.output import echo_json
from artstore_grpc.cli.own_service import Place, own_service
from artstore_grpc.cli.session import channel_credentials, json_option, timeout_option, tls_options


@click.command()
@click.option(
    "--service",
    default="readiness",
    show_default=True,
    help="`readiness`, `liveness`, a full service name, or '' for the server.",
)
@click.option(
    "--target",
    metavar="HOST:PORT",
    help="The service's gRPC address.  [default: ARTSTORE_TARGET, else where the settings say that it listens]",
)
@tls_options
@timeout_option
@json_option
def health(
    service: str,
    target: str | None,
    ca_file: str | None,
    client_certificate: str | None,
    client_certificate_key: str | None,
    timeout: timedelta,
    as_json: bool,
) -> None:
    """Ask whether the service is serving; exits 8 if it is not.

    Where neither a target nor a CA is given, it asks the service whose settings are in the environment, as a
    container's health check has them: at ARTSTORE_HEALTH_ADDRESS, or else at ARTSTORE_GRPC_ADDRESS, by TLS if that has
    a certificate, which is not verified.
    """
    secured = channel_credentials(ca_file, client_certificate, client_certificate_key)
    named = target or environment.target(default="")
    if named or secured:
        place = Place(named or environment.DEFAULT_TARGET, secured)
    else:
        place = own_service(timeout.total_seconds())
    click.get_current_context().meta[TARGET] = place.target
    tell(service, asyncio.run(serving(place, service, timeout)), as_json=as_json)


async def serving(place: Place, service: str, limit: timedelta) -> bool:
    """Whether a service there is serving. Raises IdentityError, and Failure for one that the server doesn't know."""
    options = CHANNEL_OPTIONS + place.options
    if place.credentials is None:
        channel = grpc.aio.insecure_channel(place.target, options=options)
    else:
        channel = grpc.aio.secure_channel(place.target, place.credentials, options=options)
    async with channel:
        try:
            request = HealthCheckRequest(service=service)
            answer = await HealthStub(channel).Check(request, timeout=limit.total_seconds())
        except grpc.aio.AioRpcError as error:
            raise refused(from_rpc_error(error), service) from error
    return bool(answer.status == HealthCheckResponse.SERVING)


def refused(error: IdentityError, service: str) -> Exception:
    if isinstance(error, NotFound):
        return Failure(Exit.NOT_FOUND, "NOT_FOUND", f"The server has no service {service!r} to check.")
    return error


def tell(service: str, serves: bool, *, as_json: bool) -> None:
    """Raises Failure, so that the exit code says it too."""
    if as_json:
        echo_json({"service": service, "serving": serves})
    elif serves:
        click.echo("serving")
    if not serves:
        raise Failure(Exit.UNAVAILABLE, "NOT_SERVING", f"{service or 'The server'} is not serving.")
