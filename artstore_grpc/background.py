"""What a process does by itself, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from artstore_grpc import jobs
from artstore_grpc.census import INTERVAL as CENSUS_INTERVAL
from artstore_grpc.denials import FLUSH_INTERVAL as DENIALS_INTERVAL
from artstore_grpc.ephemeral.probe import INTERVAL as PROBE_INTERVAL
from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.notary import INTERVAL as NOTARY_INTERVAL
from artstore_grpc.parts import Parts
from artstore_grpc.scheduled_rotation import INTERVAL as ROTATION_INTERVAL
from artstore_grpc.settings import Settings
from artstore_grpc.signing_keys import TICK_INTERVAL
from artstore_grpc.store import notifications
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.usage import FLUSH_INTERVAL

LISTEN_RETRY = timedelta(seconds=1)
"""How soon a broken LISTEN is tried again; the poll goes on meanwhile."""


async def background(
    settings: Settings, made: Parts, logger: Logger, now: Callable[[], datetime], stack: AsyncExitStack
) -> None:
    """Starts what happens by itself; it ends with the stack, which flushes last uses and denials once more."""
    purge = jobs.Purge(made.store, uuid.uuid4().hex, now)

    async def follow() -> None:
        made.changed.clear()
        await made.health.follow(serving=made.replica.serving, database=not made.replica.outage)
        logger.info("database", up=not made.replica.outage, serving=made.replica.serving)
        await made.changed.wait()

    async def listen() -> None:
        await notifications.listen(settings.store_url, made.replica.wake)

    work = [
        jobs.forever("tail", timedelta(0), made.replica.tail, logger),
        jobs.forever("usage", FLUSH_INTERVAL, made.usage.flush, logger),
        jobs.forever("denials", DENIALS_INTERVAL, made.denials.flush, logger),
        jobs.forever("purge", jobs.PURGE_INTERVAL, purge.run, logger),
        jobs.forever("rotations", ROTATION_INTERVAL, made.scheduled_rotation.turn, logger),
        jobs.forever("census", CENSUS_INTERVAL, made.census.run, logger),
        jobs.forever("keys", TICK_INTERVAL, made.signing_keys.tick, logger),
        jobs.forever("health", timedelta(0), follow, logger),
        jobs.forever("listen", LISTEN_RETRY, listen, logger),
        jobs.forever("checkpoint", NOTARY_INTERVAL, made.notary.run, logger),
    ]
    if made.announcements is not None:
        hear = partial(made.announcements.listen, made.replica.wake)
        work.append(jobs.forever("announcements", LISTEN_RETRY, hear, logger))
    if made.probe is not None:
        work.append(jobs.forever("probe", PROBE_INTERVAL, made.probe.run, logger))
    stack.push_async_callback(made.usage.flush)
    stack.push_async_callback(last_denials, made, logger)
    stack.push_async_callback(made.signing_keys.resign)
    for each in work:
        run_beside(stack, each)
    await made.health.follow(serving=True, database=True)


async def last_denials(made: Parts, logger: Logger) -> None:
    """Writes what was denied in the last minute; where the database is away the log has it."""
    try:
        await made.denials.close()
    except StoreUnavailable:
        logger.warning("denials not in the ledger", cause="the database is down")


def run_beside(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Runs it from now until the stack ends."""
    stack.push_async_callback(ended, asyncio.create_task(work))


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
