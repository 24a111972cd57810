"""`worker`: one of the processes of `serve --workers`. Its supervisor alone starts it, and it shows in no help."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import click

from artstore_grpc.cli import environment
from artstore_grpc.cli.loop import allow_files, quiet_collector, run
from artstore_grpc.cli.serve import greeting

if TYPE_CHECKING:
    from artstore_grpc.app import Started


@click.command(hidden=True)
@click.option("--called", required=True, help="The program as it was called, for what it tells people.")
@click.option("--channel", type=int, required=True, help="The number of the open socket to the supervisor.")
def worker(called: str, channel: int) -> None:
    """Serve for a supervisor."""
    # Imported late: the commands that are clients start without the server's libraries.
    from artstore_grpc.telemetry.logs import capture_library_logs, configured
    from artstore_grpc.workers.worker import work

    end = socket.socket(fileno=channel)
    end.set_inheritable(False)
    sys.argv[0] = called
    settings = environment.settings()
    allow_files(settings)
    logger = configured(settings.log_level, sample=settings.log_sample, colors=environment.colors())
    capture_library_logs(logger)

    def ready(started: Started, *, greets: bool) -> None:
        quiet_collector()
        if greets:
            click.echo(greeting(settings, started), nl=False)

    run(work(end, settings, logger, ready))
