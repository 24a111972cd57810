"""A worker's side: serves as any process does, when and where its supervisor says, and tells it what it counts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

from artstore_grpc import app, jobs
from artstore_grpc.app import Share, Started
from artstore_grpc.settings import Settings
from artstore_grpc.telemetry import merging
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.telemetry.metrics import Metrics
from artstore_grpc.workers.channel import Assignment, Channel


class OnStarted(Protocol):
    """Called once it is ready."""

    def __call__(self, started: Started, *, greets: bool) -> None: ...


REPORT_SECONDS = 1.0
"""How often a worker tells its metrics: what is lost of them when it is killed. The supervisor takes one that tells
nothing for long for one that hangs."""


async def work(end: socket.socket, settings: Settings, logger: Logger, on_started: OnStarted) -> None:
    """Serves until the supervisor says so, or has ended. `on_started` is told whether this is the one that says how to
    get a token. Raises as `app.serve` does."""
    channel = await Channel.over(end)
    first = await channel.hear()
    if first is None or "number" not in first:
        return  # it all ends before it has begun
    assignment = Assignment.of(first)
    stop, share = app.stop_on_signals(), Share(Metrics(), asyncio.Event(), alone=assignment.alone)

    numbered: Any = logger.bind(worker=assignment.number)  # of the class that it was

    def started(what: Started) -> None:
        on_started(what, greets=assignment.greets)
        channel.tell(ready=True)

    tasks = [
        asyncio.create_task(listen(channel, share, stop)),
        asyncio.create_task(report(channel, share.metrics, logger)),
    ]
    try:
        await app.serve(
            assigned(settings, assignment),
            on_started=started,
            stop=stop,
            logger=numbered,
            share=share,
        )
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        tell_metrics(channel, share.metrics)
        await channel.close()


def assigned(settings: Settings, assignment: Assignment) -> Settings:
    """The settings with what the supervisor has decided."""
    return replace(
        settings,
        workers=assignment.workers,
        insecure_public=assignment.insecure_public,
        metrics_address=None,
        **assignment.addresses,  # type: ignore[arg-type]  # each is an Address
    )


async def listen(channel: Channel, share: Share, stop: asyncio.Event) -> None:
    """Does what the supervisor says; without one there is nothing left to serve for."""
    while (told := await channel.hear()) is not None:
        if told.get("unready"):
            share.unready.set()
        if "drain_seconds" in told:
            share.within = timedelta(seconds=told["drain_seconds"])
            stop.set()
    stop.set()


async def report(channel: Channel, metrics: Metrics, logger: Logger) -> None:
    """Tells them again and again; a defect of what reads them is logged, since who falls silent is killed."""

    async def tell() -> None:
        tell_metrics(channel, metrics)

    await jobs.forever("report", timedelta(seconds=REPORT_SECONDS), tell, logger)


def tell_metrics(channel: Channel, metrics: Metrics) -> None:
    channel.tell(metrics=merging.message(merging.families(metrics.registry)))
