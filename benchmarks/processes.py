"""Processes under measurement: pinned to one core, and what they have used of it by the kernel's own account."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from tests.processes.service import COMMAND, Service, until

SERVER_CORE, LOAD_CORE = 0, 1
START_SECONDS = 60.0
CPUCLOCK_SCHED = 2
"""The kind of process clock that counts running time (Linux, include/linux/posix-timers.h)."""


def cores() -> int:
    return len(os.sched_getaffinity(0))


def pin(pid: int, core: int | None) -> None:
    """Keeps a process on one core, if there are two to keep apart, or lets it have every core; threads that it starts
    later stay there too."""
    count = os.cpu_count() or 1
    if core is None or core < count:
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, range(count) if core is None else {core})


def cpu_seconds(pid: int) -> float:
    """What a process has run, in threads that ended too; this is how clock_getcpuclockid(3) makes a clock's id."""
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)


def family(pid: int) -> tuple[int, ...]:
    """A process and those that it has started: a supervisor and its workers."""
    return (pid, *(child.pid for child in psutil.Process(pid).children()))


@dataclass(frozen=True, slots=True)
class Measured:
    """The processes whose cost an operation is: one, a supervisor and its workers, or two for a gateway that runs
    alone."""

    pids: tuple[int, ...]

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids)

    def resident_bytes(self) -> int:
        total: int = sum(psutil.Process(pid).memory_info().rss for pid in self.pids)
        return total


class Spoken:
    """A program of ours that prints one line when it is ready: `with Spoken(command) as it: it.line`."""

    def __init__(self, command: list[str], environment: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        self._command = command
        self._environment = environment
        self._cwd = cwd
        self.line = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd=self._cwd,
            text=True,
        )
        pin(self._process.pid, SERVER_CORE)
        assert self._process.stdout is not None
        self.line = self._process.stdout.readline().strip()
        if not self.line:
            raise RuntimeError(f"{' '.join(self._command)} did not start")
        pin(self._process.pid, SERVER_CORE)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def pid(self) -> int:
        return self._process.pid


def floor(kind: str) -> Spoken:
    """A bare server of floors.py; its line is its port."""
    return Spoken([sys.executable, "-m", "benchmarks.floors", kind])


def gateway(target: str, environment: dict[str, str], cwd: Path) -> Spoken:
    """The gateway alone; its line names its URL."""
    cwd.mkdir(parents=True, exist_ok=True)
    return Spoken([*COMMAND, "gateway", "--target", target], environment, cwd)


def started(service: Service, *, every_core: bool = False) -> Service:
    """The service, ready, and pinned; it may have every core if that is said, which it had not inherited."""
    service.spawn()
    service.logged("ready")
    for pid in family(service.pid):
        pin(pid, None if every_core else SERVER_CORE)
    until(lambda: service.running, START_SECONDS, "running")
    return service
