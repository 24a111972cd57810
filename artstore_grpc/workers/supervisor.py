"""Starts the workers, keeps them at their number, replaces them one by one, ends them one after another. One that has
ended or that hangs is replaced; how well one answers is not its business.

A process that serves nothing and holds no secret, without gRPC, whose threads no fork would survive: each worker is a
program of its own, started anew. It holds the ports from before the first one is there until after the last one has
ended; what comes in there the kernel divides among the workers that listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from artstore_grpc.settings import Address, Settings
from artstore_grpc.telemetry import merging
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.telemetry.merging import Merged
from artstore_grpc.workers.channel import Assignment, Channel
from artstore_grpc.workers.restarts import Restarts
from artstore_grpc.workers.tally import Tally

LAST_SECONDS = 5.0
"""What a worker has beyond the grace for its last words: last uses, denials, metrics. Then it is killed."""
SILENCE_SECONDS = 30.0
"""A worker tells its metrics each second, from its start on (worker.py, REPORT_SECONDS). One that tells nothing for so
long answers nobody: what tells them is the event loop that answers calls."""
FIRST_WORD_FACTOR = 4
"""How much longer the first word may take, after it was told what to do: its libraries are read before."""
LISTENING_SECONDS = 1.0
"""Silence is waited for in parts of so long: a pause of the supervisor's too (a container's, a machine's) counts as one
part, so that after it nobody is killed who has had no time to speak."""


@dataclass(slots=True, eq=False)
class Worker:
    """One process."""

    serial: int
    number: int
    process: asyncio.subprocess.Process
    channel: Channel
    started: float
    assigned: bool = False
    spoke: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def code(self) -> int:
        """How it ended: its exit code, or its signal as a negative number."""
        assert self.process.returncode is not None
        return self.process.returncode

    async def began(self) -> bool:
        """Waits until it is ready, or has ended before."""
        waits = [asyncio.ensure_future(each.wait()) for each in (self.ready, self.ended)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        return not self.ended.is_set()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class Supervisor:
    """`command`: the program of a worker, which is given the number of its end of the channel. `addresses`: where they
    listen, by their settings' names, with the ports as held. `silence_seconds`: for how long one may tell nothing
    before it is killed; four times as long before its first word."""

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str],
        addresses: dict[str, Address],
        *,
        merged: Merged,
        tally: Tally,
        logger: Logger,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self._settings = settings
        self._silence_seconds = silence_seconds
        self._command = command
        self._addresses = addresses
        self._merged = merged
        self._tally = tally
        self._log = logger
        self._serials = itertools.count(1)
        self._alive: set[Worker] = set()
        self._places: list[Worker | None] = [None] * settings.workers
        self._locks = [asyncio.Lock() for _ in range(settings.workers)]
        self._watching: set[asyncio.Task[None]] = set()
        self._settled = False
        self._begun, self._emptied = asyncio.Event(), asyncio.Event()
        self._stop = asyncio.Event()
        self._roll = asyncio.Event()
        self._failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        """Until a stop, a start that can't succeed, or a defect of its own; the exit code."""
        self._follow_signals()
        serving, stopped = asyncio.create_task(self._serve()), asyncio.create_task(self._stop.wait())
        await asyncio.wait((serving, stopped, self._failed), return_when=asyncio.FIRST_COMPLETED)
        for task in (serving, stopped):
            task.cancel()
        await asyncio.gather(serving, stopped, return_exceptions=True)
        if not serving.cancelled():  # else it goes on for ever
            self._log.error("supervisor failed", exc_info=serving.exception())
            self._fail(1)
        await self._drain()
        return self._failed.result() if self._failed.done() else 0

    async def _serve(self) -> None:
        """The first worker works alone until it is ready, since it may have an installation to make; the others are
        told what to do then, and have read their libraries meanwhile."""
        async with asyncio.TaskGroup() as keepers:
            for number in range(len(self._places)):
                keepers.create_task(self._keep(number))
            for number in range(len(self._places)):
                await self._ready(number)
            self._settled = True
            self._log.info("ready", workers=len(self._places))
            while True:
                await self._roll.wait()
                self._roll.clear()
                await self._replace_all()

    async def _ready(self, number: int) -> None:
        """Waits until there is a worker at a place that is ready."""
        while True:
            worker = self._places[number]
            if worker is not None and await worker.began():
                return
            await asyncio.sleep(0.01)

    async def _keep(self, number: int) -> None:
        """Has a worker at a place, always."""
        restarts = Restarts()
        while True:
            worker = self._places[number]
            if worker is not None:
                await worker.ended.wait()
            async with self._locks[number]:
                if self._places[number] is not worker:
                    continue  # replaced meanwhile
                if worker is not None:
                    await self._mourn(worker, restarts)
                    self._places[number] = None
                try:
                    self._places[number] = await self._spawn(number)
                except OSError as error:
                    wait = restarts.wait(0.0)
                    self._log.error("worker not started", worker=number, cause=error.strerror, retry_in_seconds=wait)
                    await asyncio.sleep(wait)

    async def _mourn(self, worker: Worker, restarts: Restarts) -> None:
        """After a worker has ended: waits for as long as its successor has to. One that ended by an error of its own
        before it was ready ends it all, at the start and where nobody else serves: the next would end alike."""
        serving = any(each.ready.is_set() for each in self._alive)
        if not worker.ready.is_set() and worker.code > 0 and not (self._settled and serving):
            self._fail(worker.code)
            await asyncio.Event().wait()  # it all ends
        wait = restarts.wait(time.monotonic() - worker.started)
        self._log.error("worker died", worker=worker.number, code=worker.code, restart_in_seconds=wait)
        self._tally.restarts += 1
        await asyncio.sleep(wait)

    def _fail(self, code: int) -> None:
        if not self._failed.done():
            self._failed.set_result(code)

    async def _spawn(self, number: int) -> Worker:
        """Starts one and tells it what to do. Raises OSError where the system starts no process now."""
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as on_failure, theirs:
            on_failure.callback(ours.close)
            process = await asyncio.create_subprocess_exec(
                *self._command,
                str(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # a terminal's ^C is for the supervisor, which ends them one after another
            )
            on_failure.pop_all()
        worker = Worker(next(self._serials), number, process, await Channel.over(ours), time.monotonic())
        self._alive.add(worker)
        self._emptied.clear()
        task = asyncio.create_task(self._watch(worker))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        if number:
            await self._begun.wait()
        worker.channel.tell(
            **Assignment(
                number=number,
                workers=len(self._places),
                alone=not any(each.ready.is_set() for each in self._alive),
                greets=not self._settled and number == 0,
                insecure_public=self._settings.insecure_public,
                addresses=self._addresses,
            ).message()
        )
        worker.assigned = True
        return worker

    async def _watch(self, worker: Worker) -> None:
        """Hears what a worker tells, until it has ended. One that has said its last has a while to end; one that can't
        be understood has none."""
        try:
            while (told := await self._heard(worker)) is not None:
                worker.spoke = True
                if told.get("ready"):
                    worker.ready.set()
                    self._begun.set()
                    self._count()
                if "metrics" in told:
                    self._merged.tell(worker.serial, merging.heard(told["metrics"]))
        except (ValueError, LookupError, TypeError) as error:
            worker.kill()
            self._log.error("worker not understood", worker=worker.number, error=str(error))
        try:
            async with asyncio.timeout(self._silence_seconds):
                await worker.process.wait()
        except TimeoutError:
            self._hangs(worker, self._silence_seconds)
            await worker.process.wait()
        await worker.channel.close()
        self._alive.discard(worker)
        self._merged.forget(worker.serial)
        self._count()
        worker.ended.set()
        if not self._alive:
            self._emptied.set()

    async def _heard(self, worker: Worker) -> dict[str, Any] | None:
        """What a worker tells next; None once it has ended. One that has been told what to do and tells nothing for
        too long is killed: no rolling restart waits for it."""
        silent = 0.0
        while silent < self._silence_seconds * (1 if worker.spoke else FIRST_WORD_FACTOR):
            try:
                async with asyncio.timeout(LISTENING_SECONDS):
                    return await worker.channel.hear()
            except TimeoutError:
                silent += LISTENING_SECONDS if worker.assigned else 0.0
        self._hangs(worker, silent)
        return None

    def _hangs(self, worker: Worker, silent_seconds: float) -> None:
        worker.kill()
        self._log.error("worker hangs", worker=worker.number, silent_seconds=silent_seconds)

    def _count(self) -> None:
        self._tally.ready = sum(each.ready.is_set() for each in self._alive)

    async def _replace_all(self) -> None:
        """A rolling restart: each worker's successor is ready before it drains itself, one at a time. Where a successor
        fails the others stay."""
        self._log.info("rolling restart")
        for number in range(len(self._places)):
            async with self._locks[number]:
                old = self._places[number]
                try:
                    new = await self._spawn(number)
                except OSError as error:
                    self._log.error("rolling restart given up", worker=number, cause=error.strerror)
                    return
                if not await new.began():
                    self._log.error("rolling restart given up", worker=number, code=new.code)
                    return
                self._places[number] = new
            if old is not None:
                await self._end(old, self._settings.drain_grace.total_seconds())
        self._log.info("rolling restart done")

    async def _end(self, worker: Worker, seconds: float) -> None:
        """Drains one within so many seconds, and kills it if it takes much longer."""
        worker.channel.tell(drain_seconds=seconds)
        await waited(worker.ended, seconds + LAST_SECONDS)
        if not worker.ended.is_set():
            self._log.error("worker killed", worker=worker.number)
            worker.kill()
            await worker.ended.wait()

    async def _drain(self) -> None:
        """All are unready at once, and still take calls for `drain_delay`. Then they close their doors in turn: each
        when the one before has ended, or has had its part of `drain_grace`. Calls in flight, whosever, have until the
        end of both, and the processes 5 s more for their last words."""
        workers = sorted(self._alive, key=lambda each: each.number)
        delay, grace = self._settings.drain_delay.total_seconds(), self._settings.drain_grace.total_seconds()
        if not workers:
            return
        self._log.info("draining")
        for worker in workers:
            worker.channel.tell(unready=True)
        if self._settled:
            await waited(self._emptied, delay)
        begun = time.monotonic()
        ends = []
        for position, worker in enumerate(workers, 1):
            left = max(0.0, begun + grace - time.monotonic())
            ends.append(asyncio.create_task(self._end(worker, left)))
            await waited(worker.ended, max(0.0, begun + grace * position / len(workers) - time.monotonic()))
        await asyncio.gather(*ends)
        self._log.info("stopped")

    def _follow_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._roll.set)

    def _asked_to_stop(self) -> None:
        """A second time it ends at once, and the workers with it."""
        if self._stop.is_set():
            for worker in self._alive:
                worker.kill()
        self._stop.set()


async def waited(event: asyncio.Event, seconds: float) -> None:
    """Until it is set, or so many seconds have passed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
