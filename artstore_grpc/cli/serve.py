"""`serve`: the service, its settings from the environment; and what the first start of the embedded default says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from artstore_grpc.cli import environment
from artstore_grpc.cli.loop import run
from artstore_grpc.settings import Settings

if TYPE_CHECKING:
    from artstore_grpc.app import Started


class ServerCommand(click.Command):
    """A command that reads the settings: its help ends with a list of them."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from artstore_grpc.cli.reference import settings_table

        with formatter.section("Settings, from the environment"):
            formatter.write_dl(
                [
                    (
                        f"{row.name}[_FILE]" if row.secret else row.name,
                        row.text + (f"  [default: {row.default}]" if row.default else ""),
                    )
                    for row in settings_table()
                ]
            )


def settings_with_warnings() -> Settings:
    """The settings; variables that look like one and are none are told on standard error."""
    for warning in environment.warnings():
        click.echo(f"Warning: {warning}", err=True)
    return environment.settings()


@click.command(cls=ServerCommand)
def serve() -> None:
    """Run the service, until SIGTERM or SIGINT.

    Without any settings it keeps its data in ./var, and its first start makes an administrator.
    """
    # Imported late: the commands that are clients start without the server's libraries.
    from artstore_grpc import app

    settings = settings_with_warnings()
    run(app.serve(settings, on_started=lambda started: click.echo(greeting(settings, started), nl=False)))


def greeting(settings: Settings, started: Started) -> str:
    """What to say once the service is ready: how to get a first token. Writes the credentials' file, if need be."""
    from artstore_grpc.cli import administrator as first

    if started.administrator is not None and sys.stdout.isatty():
        return first.shown_once(started.administrator, started.grpc_address, started.gateway_address) + "\n"
    said = ""
    if started.administrator is not None:
        path = first.write_file(settings.data_dir, started.administrator, started.grpc_address)
        said = f"The first administrator's credentials are in {path}.\n"
    latest = first.latest_file(settings.data_dir) if settings.embedded else None
    if latest is not None:
        said += f"Get a token: {first.paste_line(latest, started.grpc_address)}\n"
    return said
