"""`db upgrade` and `bootstrap`: what an installation needs once, before it serves."""

from __future__ import annotations

import click

from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.loop import run
from artstore_grpc.cli.output import echo_json, echo_secret
from artstore_grpc.cli.serve import ServerCommand, settings_with_warnings
from artstore_grpc.cli.session import json_option
from artstore_grpc.settings import Settings


@click.group()
def db() -> None:
    """Look after the database."""


@db.command(cls=ServerCommand)
@click.option(
    "--run-role", metavar="ROLE", default="", help="PostgreSQL role that the service runs as: gets its rights."
)
def upgrade(run_role: str) -> None:
    """Bring the database's schema up to date; does nothing when it is.

    With --run-role this is run as the role that owns the tables, and the service as ROLE, which may read and write
    rows, append to the ledger, and nothing else. Give it each time: new tables need their grants.
    """
    settings = settings_with_warnings()
    run(upgraded(settings, run_role))
    click.echo("The schema is up to date.")


async def upgraded(settings: Settings, run_role: str) -> None:
    from artstore_grpc import installation
    from artstore_grpc.store import schema

    if settings.embedded and not run_role:
        await installation.prepare(settings)  # its folder first
        return
    try:
        await schema.upgrade(settings.store_url, run_role)
    except schema.UnknownRole as error:
        raise Failure(Exit.NOT_FOUND, "UNKNOWN_ROLE", str(error)) from None


@click.command(cls=ServerCommand)
@json_option
def bootstrap(as_json: bool) -> None:
    """Create the first administrator, and show its secret this once; exits 3 if there is one already.

    On the embedded default it makes the database first; elsewhere run `db upgrade` before.
    """
    from artstore_grpc import app

    made = run(app.bootstrap(settings_with_warnings()))
    if as_json:
        echo_json({"client_id": made.client_id, "client_secret": made.client_secret})
    else:
        click.echo("The first administrator is created.")
        echo_secret(made.client_id, made.client_secret)
