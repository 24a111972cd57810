"""The program that `serve` becomes where it has several workers: claims the addresses, serves the metrics of them all,
and keeps the workers. It is a program of its own so that gRPC is never loaded in it.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from contextlib import ExitStack
from dataclasses import replace

from prometheus_client import CollectorRegistry

from artstore_grpc.cli import environment
from artstore_grpc.errors import CannotBind
from artstore_grpc.listeners import held
from artstore_grpc.settings import Address, InvalidSettings, Settings
from artstore_grpc.telemetry.catalogue import MERGES
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.telemetry.merging import Merged
from artstore_grpc.telemetry.metrics import serve_metrics
from artstore_grpc.workers.channel import ADDRESSES
from artstore_grpc.workers.supervisor import SILENCE_SECONDS, Supervisor
from artstore_grpc.workers.tally import Tally

DOORS = {"grpc": "grpc", "gateway": "gateway", "health": "health", "mtls": "grpc_mtls"}
"""The doors as the log has them, and as their settings do."""


def main() -> None:
    """As `serve` calls it: the settings are the environment's, but for what the command line said."""
    parser = argparse.ArgumentParser(prog="artstore-grpc serve")
    parser.add_argument("--workers", required=True)
    parser.add_argument("--called", required=True, help="the program as it was called, for what it tells people")
    parser.add_argument("--insecure-public", action="store_true")
    given = parser.parse_args()
    try:
        settings = environment.settings()
        workers = environment.parsed("workers", given.workers)
        insecure = settings.insecure_public or given.insecure_public
        settings = replace(settings, workers=workers, insecure_public=insecure)
        code = asyncio.run(supervised(settings, given.called))
    except (CannotBind, InvalidSettings) as error:
        sys.exit(refused(error))
    sys.exit(code)


async def supervised(settings: Settings, called: str, *, silence_seconds: float = SILENCE_SECONDS) -> int:
    """Serves until a signal; the exit code. `silence_seconds` as Supervisor has it. Raises CannotBind."""
    logger = configured(settings.log_level, colors=environment.colors())
    tally = Tally()
    with ExitStack() as stack:
        addresses = claimed(settings, stack)
        merged, registry = Merged(tally.registry, MERGES), CollectorRegistry()
        registry.register(merged)
        metrics = serve_metrics(settings.metrics_address, registry, stack)
        told = {door: str(addresses.get(f"{setting}_address")) for door, setting in DOORS.items()}
        logger.info("listening", **told, metrics=str(metrics), workers=settings.workers)
        command = [sys.executable, "-P", "-m", "artstore_grpc.cli.main", "worker", "--called", called, "--channel"]
        return await Supervisor(
            settings,
            command,
            addresses,
            merged=merged,
            tally=tally,
            logger=logger,
            silence_seconds=silence_seconds,
        ).run()


def claimed(settings: Settings, stack: ExitStack) -> dict[str, Address]:
    """Where the workers are to listen, kept until the stack ends: by name of setting, with the port that each got."""
    found = {}
    for name in ADDRESSES:
        address: Address | None = getattr(settings, name)
        if address is not None:
            holder: socket.socket = stack.enter_context(held(address))
            found[name] = Address(host=address.host, port=holder.getsockname()[1])
    return found


def refused(error: Exception) -> int:
    """Says why it does not start; the exit code."""
    from artstore_grpc.cli.exits import exit_of  # imported late: it knows the client, and so gRPC
    from artstore_grpc.cli.failures import report
    from artstore_grpc.cli.loop import cannot_bind

    told = cannot_bind(error) if isinstance(error, CannotBind) else error
    report(told, as_json=False)
    return exit_of(told)


if __name__ == "__main__":
    main()
