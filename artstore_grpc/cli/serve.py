"""`serve`: the service, its settings from the environment; and what the first start of the embedded default says."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import click

from artstore_grpc.cli import environment, supervise
from artstore_grpc.cli.loop import allow_files, quiet_collector, run
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


insecure_public_option = click.option(
    "--insecure-public",
    is_flag=True,
    help="Listen beyond the loopback without TLS: a mesh or an ingress encrypts (ARTSTORE_INSECURE_PUBLIC=true).",
)


def settings_with_warnings(*, insecure_public: bool = False) -> Settings:
    """The settings, with what the option of that name adds; variables that look like one and are none are told on
    standard error."""
    for warning in environment.warnings():
        click.echo(f"Warning: {warning}", err=True)
    settings = environment.settings()
    return replace(settings, insecure_public=True) if insecure_public else settings


@click.command(cls=ServerCommand)
@insecure_public_option
@click.option("--workers", metavar="N", help="Processes that share the listeners, or auto (ARTSTORE_WORKERS).")
def serve(insecure_public: bool, workers: str | None) -> None:
    """Run the service, until SIGTERM or SIGINT; with several workers SIGHUP replaces them one by one.

    One process has none to replace: on SIGHUP it drains and ends, as on SIGTERM, unless it was started with SIGHUP
    ignored (nohup).

    Without any settings it keeps its data in ./var, and its first start makes an administrator.
    """
    settings = settings_with_warnings(insecure_public=insecure_public)
    if workers is not None:
        settings = replace(settings, workers=environment.parsed("workers", workers))
    if settings.workers > 1:
        become_supervisor(settings)
    # Imported late: the commands that are clients start without the server's libraries.
    from artstore_grpc import app

    allow_files(settings)

    def ready(started: Started) -> None:
        quiet_collector()
        click.echo(greeting(settings, started), nl=False)

    run(app.serve(settings, on_started=ready, colors=environment.colors()))


def become_supervisor(settings: Settings) -> NoReturn:
    """Goes on as the program that keeps the workers: this one has read gRPC's library, and more that it doesn't use."""
    command = [sys.executable, "-P", "-m", supervise.__name__, "--workers", str(settings.workers)]
    command += ["--called", sys.argv[0], *(["--insecure-public"] if settings.insecure_public else [])]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command)  # noqa: S606 - this program, by no shell


def greeting(settings: Settings, started: Started) -> str:
    """What to say once the service is ready: how to get a first token. Writes the credentials' file, if need be."""
    from artstore_grpc.cli import administrator as first

    if started.administrator is not None and sys.stdout.isatty():
        return (
            first.shown_once(started.administrator, started.grpc_address, started.gateway_address, tls=settings.tls)
            + "\n"
        )
    said = ""
    if started.administrator is not None:
        path = first.write_file(settings.data_dir, started.administrator, started.grpc_address)
        said = f"The first administrator's credentials are in {path}.\n"
    latest = first.latest_file(settings.data_dir) if settings.embedded else None
    if latest is not None:
        if settings.tls:
            said += "Give its CA to clients: ARTSTORE_CA_FILE=….\n"
        said += f"Get a token: {first.paste_line(latest, started.grpc_address)}\n"
    return said
