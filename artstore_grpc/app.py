"""The composition root: reads what the parts need, opens the doors, starts what runs by itself, and drains it all."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from artstore_grpc import certificates, installation, jobs, root_key
from artstore_grpc.census import INTERVAL as CENSUS_INTERVAL
from artstore_grpc.certificates import Certificates, refuse_plain_text
from artstore_grpc.denials import FLUSH_INTERVAL as DENIALS_INTERVAL
from artstore_grpc.doors import Addresses, Doors, address_of
from artstore_grpc.ephemeral.probe import INTERVAL as PROBE_INTERVAL
from artstore_grpc.errors import KeyServiceUnavailable, StoreUnavailable
from artstore_grpc.installation import Administrator, AlreadyBootstrapped
from artstore_grpc.listeners import bind
from artstore_grpc.notary import INTERVAL as NOTARY_INTERVAL
from artstore_grpc.parts import Parts, parts, utc_now
from artstore_grpc.presence import presence
from artstore_grpc.scheduled_rotation import INTERVAL as ROTATION_INTERVAL
from artstore_grpc.settings import Address, InvalidSettings, Settings
from artstore_grpc.signing_keys import TICK_INTERVAL
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.store import notifications, schema
from artstore_grpc.telemetry import log_settings
from artstore_grpc.telemetry.log_settings import LogSettings
from artstore_grpc.telemetry.logs import Logger, capture_library_logs, configured
from artstore_grpc.telemetry.metrics import Metrics
from artstore_grpc.usage import FLUSH_INTERVAL
from artstore_grpc.vault import WrongKey

if TYPE_CHECKING:
    from artstore_grpc.telemetry.traces import Traces

__all__ = ["Administrator", "AlreadyBootstrapped", "Share", "Started", "bootstrap", "serve"]

T = TypeVar("T")

LISTEN_RETRY = timedelta(seconds=1)
"""How soon a broken LISTEN is tried again; the poll goes on meanwhile."""
SERVICE = "artstore-grpc"
"""What the service is called in traces."""
LOAD_RETRY = timedelta(milliseconds=250)
"""How often a start with the database down tries again."""


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


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a start has read or made: the administrator, on the very first one of the embedded default."""

    administrator: Administrator | None


async def bootstrap(settings: Settings) -> Administrator:
    """Creates the first administrator without serving. Raises AlreadyBootstrapped, InvalidSettings, SchemaMismatch,
    StoreUnavailable."""
    logger = configured(settings.log_level)
    async with parts(settings, await installation.prepare(settings, contract=True), settings.issuer, logger) as made:
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


async def load(settings: Settings, made: Parts, logger: Logger) -> Loaded:
    """Reads what must be in memory before the first token, and makes the embedded default's first administrator; waits
    for a database or a key service that is down."""
    told: set[str] = set()
    while True:
        try:
            standing = await schema.check(settings.store_url)
            if standing.newer and "newer" not in told:
                logger.info("the schema is newer, and takes this program", schema=standing.found, own=standing.program)
                told.add("newer")
            if made.vault.locked:
                logger.info("root key opened", key=await unlock(made))
            await made.keyring.load()
            await made.notary.load()
            await made.replica.load()
            await made.signing_keys.raise_token_lifetime()
            return Loaded(await first_administrator(settings, made))
        except (StoreUnavailable, KeyServiceUnavailable) as down:
            waiting = "database" if isinstance(down, StoreUnavailable) else "key service"
            if waiting not in told:
                logger.warning(f"waiting for the {waiting}", cause=str(down))
            told.add(waiting)
            await asyncio.sleep(LOAD_RETRY.total_seconds())
        except WrongKey as error:
            raise wrong_key(error) from None


async def unlock(made: Parts) -> str:
    """Opens the vault with the root key; returns the id of the key that it was encrypted under. Raises InvalidSettings
    for another installation's key-encryption key."""
    try:
        row, root = await root_key.row_and_root(made.store, made.encryption, utc_now)
        made.vault.unlock(root)
        return row.kek_id
    except WrongKey as error:
        raise wrong_key(error) from None


def wrong_key(error: WrongKey) -> InvalidSettings:
    return InvalidSettings(f"The key-encryption key isn't this database's. {error}")


async def unless(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work returns, or None when a stop comes first and it is given up."""
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return None


async def first_administrator(settings: Settings, made: Parts) -> Administrator | None:
    """On the embedded default the very first start makes the administrator; None otherwise."""
    if not settings.embedded:
        return None
    try:
        return await installation.bootstrap(made.store, made.accounts)
    except AlreadyBootstrapped:
        return None


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


def stop_on_signals() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; a second one ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping
