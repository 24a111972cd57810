"""Whether and where this process is registered for clients to find, from its first open door to the end.

Decides which address is told. How that is kept where clients read it is in ephemeral/registration.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from importlib.metadata import version

from artstore_grpc.ephemeral.registration import Entry, Registration
from artstore_grpc.settings import WILDCARDS, Address, Settings
from artstore_grpc.telemetry.logs import Logger


def advertised(settings: Settings, bound: Address) -> Address | None:
    """The address that clients are told: the one that was given, with the bound port where it names none; else the
    bound one, unless that is every interface, of which none can be told to be theirs."""
    given = settings.advertise_address
    if given is not None:
        return given if given.port else Address(host=given.host, port=bound.port)
    return None if bound.host in WILDCARDS else bound


class Presence:
    """The registration of a process, or none."""

    def __init__(self, registration: Registration | None, changed: Callable[[], Awaitable[None]]) -> None:
        """`changed` returns when readiness may have changed."""
        self._registration = registration
        self._changed = changed
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        if self._registration is not None:
            self._tasks = [
                asyncio.create_task(self._registration.keep()),
                asyncio.create_task(self._relay(self._registration)),
            ]

    async def end(self) -> None:
        """Takes the entry away, so that no client that looks from now on comes here. Never raises."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._registration is not None and self._tasks:
            await self._registration.remove()
            await self._registration.close()
        self._tasks = []

    async def _relay(self, registration: Registration) -> None:
        while True:
            await self._changed()
            registration.tell()


def presence(
    settings: Settings,
    bound: Address,
    *,
    ready: Callable[[], bool],
    changed: Callable[[], Awaitable[None]],
    now: Callable[[], datetime],
    logger: Logger,
) -> Presence:
    """What registers this process in the Redis of the settings; nothing, where there is none or no address to tell."""
    if not settings.redis_url:
        return Presence(None, changed)
    address = advertised(settings, bound)
    if address is None:
        logger.info("not registered", cause="GRPC_ADDRESS names no host; give ADVERTISE_ADDRESS")
        return Presence(None, changed)
    entry = Entry(address=str(address), version=version("artstore-grpc"), started=now())
    registration = Registration(settings.redis_url, instance=uuid.uuid4().hex, entry=entry, ready=ready, logger=logger)
    return Presence(registration, changed)
