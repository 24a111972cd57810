"""The composition root: has the parts made, what they need read, the doors opened and what runs by itself begun, and
drains it all."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from artstore_grpc import certificates, installation, jobs
from artstore_grpc.background import background, run_beside
from artstore_grpc.certificates import Certificates, refuse_plain_text
from artstore_grpc.doors import Addresses, Doors, address_of
from artstore_grpc.installation import Administrator, AlreadyBootstrapped
from artstore_grpc.listeners import bind
from artstore_grpc.parts import Parts, parts, utc_now
from artstore_grpc.presence import presence
from artstore_grpc.settings import Address, InvalidSettings, Settings
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.startup import Loaded, load, unlock
from artstore_grpc.store import schema
from artstore_grpc.telemetry import log_settings
from artstore_grpc.telemetry.log_settings import LogSettings
from artstore_grpc.telemetry.logs import Logger, capture_library_logs, configured
from artstore_grpc.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from artstore_grpc.telemetry.traces import Traces

__all__ = ["Administrator", "AlreadyBootstrapped", "Share", "Started", "bootstrap", "serve"]

T = TypeVar("T")

CANCEL_AGAIN = timedelta(milliseconds=500)
"""After how long without an end what was given up is told so again."""

SERVICE = "artstore-grpc"
"""What the service is called in traces."""


@dataclass(frozen=True, slots=True)
class Started:
    """Where a service that is ready can be reached, and the administrator that its very first start made."""

    grpc_address: Address
    gateway_address: Address | None
    metrics_address: Address | None
    health_address: Address | None
    mtls_address: Address | None
    issuer: str
    administrator: Administrator | None


@dataclass(slots=True)
class Share:
    """What a process is told that is one of several at the same addresses, and by whom it is counted (workers/)."""

    metrics: Metrics
    unready: asyncio.Event
    """Set when it is to say that it is not ready, some time before the stop."""
    alone: bool = False
    """Whether nobody else serves there yet. Otherwise its doors open only when it is ready: the kernel would have
    callers wait at them who are answered elsewhere."""
    within: timedelta | None = None
    """Once the stop is set: how long calls in flight have, the doors closing at once. None: as the settings say."""


async def bootstrap(settings: Settings) -> Administrator:
    """Creates the first administrator without serving. Raises AlreadyBootstrapped, InvalidSettings, SchemaMismatch,
    StoreUnavailable."""
    logger = configured(settings.log_level)
    async with parts(settings, await installation.prepare(settings, contract=False), settings.issuer, logger) as made:
        await schema.check(settings.store_url)
        await unlock(made)
        return await installation.bootstrap(made.store, made.accounts)


async def serve(
    settings: Settings,
    *,
    on_started: Callable[[Started], None] = lambda started: None,
    stop: asyncio.Event | None = None,
    logger: Logger | None = None,
    now: Callable[[], datetime] = utc_now,
    sinks: Sinks | None = None,
    colors: bool = True,
    share: Share | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, or until `stop` is set; then drains. A start with the database down waits,
    unready. `colors` are those of its log, on a terminal. `share`: as one of several. Raises InvalidSettings,
    CannotBind, SchemaMismatch before it is ready."""
    stopping = stop or stop_on_signals()
    log = logger or configured(settings.log_level, sample=settings.log_sample, colors=colors)
    if logger is None:
        capture_library_logs(log)
    refuse_plain_text(settings, settings.grpc_address, settings.gateway_address)
    files = certificates.of_settings(settings, now, log)
    encryption = await installation.prepare(settings, contract=True)
    async with AsyncExitStack() as stack:
        traces = tracing(settings, SERVICE, log, stack)
        await follow_log_settings(settings, log, stack)
        alone = share is None or share.alone
        gateway = listener(settings) if alone else None  # before the parts: the issuer may be named by its port
        issuer = issuer_of(settings, address_of(gateway) or settings.gateway_address)
        metrics = share.metrics if share else None
        made = await stack.enter_async_context(
            parts(settings, encryption, issuer, log, now, sinks=sinks, metrics=metrics, traces=traces)
        )
        await made.health.follow(serving=False, database=False)
        if share is not None:
            run_beside(stack, turn_unready(share, made))
        process = Process(settings, made, issuer, log, now, stack, stopping, share, files, traces, on_started)
        await (process.open_then_load(gateway) if alone else process.load_then_open())


@dataclass(frozen=True, slots=True)
class Process:
    """From its parts to its end, in one of two orders; what both do is said once, below them."""

    settings: Settings
    parts: Parts
    issuer: str
    logger: Logger
    now: Callable[[], datetime]
    stack: AsyncExitStack
    stopping: asyncio.Event
    share: Share | None
    certificates: Certificates | None
    traces: Traces | None
    on_started: Callable[[Started], None]

    async def open_then_load(self, gateway: socket.socket | None) -> None:
        """Where nobody else serves at its addresses: they are taken at once, and say that it isn't ready yet for as
        long as it waits for its database."""
        async with self._open(gateway) as at:
            loaded = await self._load()
            if loaded is not None:
                await self._serve(at, loaded)

    async def load_then_open(self) -> None:
        """Where others do: the kernel must give it no caller before it is ready."""
        loaded = await self._load()
        if loaded is not None:
            async with self._open(listener(self.settings)) as at:
                await self._serve(at, loaded)

    async def _load(self) -> Loaded | None:
        """Reads what it needs, and starts what runs by itself; None when a stop comes first."""
        loaded = await unless(self.stopping, load(self.settings, self.parts, self.logger))
        if loaded is not None:
            await background(self.settings, self.parts, self.logger, self.now, self.stack)
        return loaded

    @asynccontextmanager
    async def _open(self, gateway: socket.socket | None) -> AsyncIterator[Addresses]:
        """Its doors are open, and clients find it; drained at the end, however that comes."""
        made, health = self.parts, self.parts.health
        doors = Doors(
            self.settings,
            gateway=gateway,
            pipeline=made.pipeline,
            health=health,
            watches=made.watches,
            metrics=made.metrics,
            logger=self.logger,
            stack=self.stack,
            certificates=self.certificates,
            traces=self.traces,
        )
        at = doors.addresses
        present = presence(
            self.settings, at.grpc, ready=lambda: health.ready, changed=health.changed, now=self.now, logger=self.logger
        )
        try:
            await doors.open()
            present.begin()
            if self.share is None:
                self.logger.info("listening", **{each.name: str(getattr(at, each.name)) for each in fields(at)})
            yield at
        finally:
            self.logger.info("draining")
            if self.traces is not None:
                usual = self.settings.drain_delay + self.settings.drain_grace
                self.traces.draining(usual if self._within is None else self._within)
            await present.end()  # first, so that no client that looks now comes here
            await doors.drain(self._within)
            self.logger.info("stopped")

    @property
    def _within(self) -> timedelta | None:
        """As `Share.within`, as far as that is known by now."""
        return self.share.within if self.share else None

    async def _serve(self, at: Addresses, loaded: Loaded) -> None:
        """Says that it is ready, and serves until the stop."""
        self.logger.info("ready" if self.share is None else "worker ready", issuer=self.issuer)
        self.on_started(Started(at.grpc, at.gateway, at.metrics, at.health, at.mtls, self.issuer, loaded.administrator))
        await self.stopping.wait()


def listener(settings: Settings) -> socket.socket | None:
    """What the gateway is to listen at, if there is one. Raises CannotBind."""
    return bind(settings.gateway_address, shared=settings.workers > 1) if settings.gateway_address else None


async def turn_unready(share: Share, made: Parts) -> None:
    await share.unready.wait()
    await made.health.drain()


def issuer_of(settings: Settings, gateway: Address | None) -> str:
    """The issuer: the one given, else the gateway's URL. Raises InvalidSettings where it is the audience too: every
    token for the storage would be one for administrators."""
    issuer = settings.issuer or f"{'https' if settings.tls else 'http'}://{gateway}"
    if issuer == settings.audience:
        raise InvalidSettings("ARTSTORE_AUDIENCE must differ from the issuer.")
    return issuer


async def unless(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work returns, or None when a stop comes first and it is given up."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    while not task.done():  # again and again: a driver may swallow one (asyncio.wait_for does, before Python 3.12)
        task.cancel()
        await asyncio.wait((task,), timeout=CANCEL_AGAIN.total_seconds())
    with contextlib.suppress(asyncio.CancelledError):
        task.result()
    return None


def tracing(settings: Settings, service: str, logger: Logger, stack: AsyncExitStack) -> Traces | None:
    """What records calls, where the settings have them traced; the last spans are sent when the stack ends."""
    if not settings.traces_endpoint:
        return None
    from artstore_grpc.telemetry.traces import Traces  # imports OpenTelemetry, which takes memory and time

    traces = Traces(
        settings.traces_endpoint,
        ratio=settings.traces_sample,
        service=service,
        environment=settings.environment.value,
        logger=logger,
    )
    stack.push_async_callback(traces.close)
    return traces


async def follow_log_settings(settings: Settings, logger: Logger, stack: AsyncExitStack) -> None:
    """Has what is logged follow the file that the settings name, from now until the stack ends."""
    if settings.log_settings_file is None:
        return
    look = LogSettings(settings.log_settings_file, logger).look
    await look()
    run_beside(stack, jobs.forever("log settings", log_settings.INTERVAL, look, logger))


def stop_on_signals() -> asyncio.Event:
    """An event that the first SIGTERM, SIGINT or SIGHUP sets; a second one ends the process at once. A SIGHUP that was
    ignored at the start stays so: `nohup` is kept."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def stop() -> None:
        stopping.set()
        for number in numbers:
            loop.remove_signal_handler(number)

    for number in numbers:
        loop.add_signal_handler(number, stop)
    return stopping
