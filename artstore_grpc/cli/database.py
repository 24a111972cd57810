"""`db upgrade` and `bootstrap`: what an installation needs once, before it serves."""

from __future__ import annotations

import click

from artstore_grpc.cli.loop import run
from artstore_grpc.cli.output import echo_json, echo_secret
from artstore_grpc.cli.serve import ServerCommand, settings_with_warnings
from artstore_grpc.cli.session import json_option
from artstore_grpc.settings import Settings


@click.group()
def db() -> None:
    """Look after the database."""


@db.command(cls=ServerCommand)
def upgrade() -> None:
    """Bring the database's schema up to date; does nothing when it is."""
    settings = settings_with_warnings()
    run(upgraded(settings))
    click.echo("The schema is up to date.")


async def upgraded(settings: Settings) -> None:
    from artstore_grpc import installation
    from artstore_grpc.store import schema

    if settings.embedded:
        await installation.prepare(settings)  # its folder first
    else:
        await schema.upgrade(settings.store_url)


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
