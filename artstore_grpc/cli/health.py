"""`health`: whether the service is serving, by exit code, for probes and scripts."""

from __future__ import annotations

import click
from artstore.identity import Client, NotFound
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.output import echo_json
from artstore_grpc.cli.session import as_anyone, json_option


@click.command()
@click.option(
    "--service",
    default="readiness",
    show_default=True,
    help="`readiness`, `liveness`, a full service name, or '' for the server.",
)
@json_option
@as_anyone
async def health(client: Client, service: str, as_json: bool) -> None:
    """Ask whether the service is serving; exits 8 if it is not."""
    try:
        answer = await client.call(HealthStub(client.channel).Check, HealthCheckRequest(service=service))
    except NotFound as error:
        raise Failure(Exit.NOT_FOUND, "NOT_FOUND", f"The server has no service {service!r} to check.") from error
    serving = answer.status == HealthCheckResponse.SERVING
    status = "serving" if serving else "not serving"
    if as_json:
        echo_json({"service": service, "serving": serving})
    elif serving:
        click.echo(status)
    if not serving:
        raise Failure(Exit.UNAVAILABLE, "NOT_SERVING", f"{service or 'The server'} is {status}.")
