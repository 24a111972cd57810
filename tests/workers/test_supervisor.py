"""What a supervisor does about a worker that neither serves nor ends, and about one that can't be started.

The workers here are bare programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from artstore_grpc.settings import Settings
from artstore_grpc.telemetry.merging import Merged
from artstore_grpc.workers.supervisor import Supervisor
from artstore_grpc.workers.tally import Tally

SILENCE_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
ASSIGNED = """
import socket, sys, time
end = socket.socket(fileno=int(sys.argv[1]))
end.recv(65536)
"""
WORKER = f"""{ASSIGNED}
end.sendall(b'{{"ready":true}}\\n')
"""
SLEEPS = "\ntime.sleep(600)"
TELLS = """
while True:
    end.sendall(b'{"metrics":[]}\\n')
    time.sleep(0.1)
"""


class Said:
    """A log that is kept."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._more = asyncio.Event()

    def __getattr__(self, level: str) -> Any:
        return self._keep

    def _keep(self, event: str, **_: object) -> None:
        self.events.append(event)
        self._more.set()

    async def says(self, event: str) -> None:
        """Waits until it has been told."""
        while event not in self.events:
            self._more.clear()
            await self._more.wait()


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("end.close()", "worker hangs"),
        ("end.sendall(b'nonsense\\n')", "worker not understood"),
        ("""end.sendall(b'{"metrics":[1]}\\n')""", "worker not understood"),
    ],
)
async def test_who_lives_on_but_is_lost_is_replaced(then: str, said: str) -> None:
    """A worker that closes its channel and doesn't end, and one that says what nobody understands, is killed, and
    another one is started."""
    log, tally = Said(), Tally()
    supervisor = Supervisor(
        Settings(workers=1, drain_delay=timedelta(), drain_grace=timedelta()),
        [sys.executable, "-c", WORKER + then + SLEEPS],
        {},
        merged=Merged(tally.registry, {}),
        tally=tally,
        logger=log,  # type: ignore[arg-type]
        silence_seconds=SILENCE_SECONDS,
    )
    running = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await log.says("worker died")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
    assert log.events.index(said) < log.events.index("worker died")


def becomes(program: Path, source: str) -> None:
    """What the next worker is."""
    program.write_text(f"#!{sys.executable}\n{source}")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A worker's program that can be taken away."""
    made = tmp_path / "worker"
    becomes(made, WORKER + SLEEPS)
    made.chmod(0o700)
    return made


@pytest.mark.parametrize("says", ["", """end.sendall(b'{"metrics":[]}\\n')"""])
async def test_no_rolling_restart_waits_for_one_that_hangs(program: Path, says: str) -> None:
    """A successor that hangs before it is ready, whether or not it has said a word, is killed; the rolling restart is
    given up, who served goes on, and another rolling restart can come."""
    log, tally = Said(), Tally()
    becomes(program, WORKER + TELLS)
    supervisor = Supervisor(
        Settings(workers=1, drain_delay=timedelta(), drain_grace=timedelta()),
        [str(program)],
        {},
        merged=Merged(tally.registry, {}),
        tally=tally,
        logger=log,  # type: ignore[arg-type]
        silence_seconds=SILENCE_SECONDS,
    )
    running = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await log.says("ready")
        (served,) = supervisor._alive
        becomes(program, ASSIGNED + says + SLEEPS)
        os.kill(os.getpid(), signal.SIGHUP)
        await log.says("rolling restart given up")
        assert supervisor._alive == {served}
        assert "worker hangs" in log.events
        becomes(program, WORKER + TELLS)
        os.kill(os.getpid(), signal.SIGHUP)
        await log.says("rolling restart done")
        assert supervisor._alive.isdisjoint({served})
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0


@contextlib.contextmanager
def away(program: Path) -> Iterator[None]:
    """Nothing can be started meanwhile."""
    hidden = program.rename(program.with_suffix(".away"))
    yield
    hidden.rename(program)


async def test_what_cannot_be_started_is_tried_again(program: Path) -> None:
    """While the system starts no process a rolling restart is given up and who serves goes on; the place of a worker
    that dies is tried again and again, and filled when it can be."""
    log, tally = Said(), Tally()
    supervisor = Supervisor(
        Settings(workers=2, drain_delay=timedelta(), drain_grace=timedelta()),
        [str(program)],
        {},
        merged=Merged(tally.registry, {}),
        tally=tally,
        logger=log,  # type: ignore[arg-type]
    )
    running = asyncio.create_task(supervisor.run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await log.says("ready")
        with away(program):
            os.kill(os.getpid(), signal.SIGHUP)
            await log.says("rolling restart given up")
            assert tally.ready == 2
            next(iter(supervisor._alive)).kill()
            await log.says("worker not started")
            assert tally.ready == 1
        while tally.ready < 2:  # noqa: ASYNC110 - a number
            await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0


async def test_a_defect_of_its_own_ends_it(program: Path) -> None:
    """A supervisor that can't do its work any more ends its workers, and itself with an error: whoever started it knows
    what to do then."""
    log, tally = Said(), Tally()
    supervisor = Supervisor(
        Settings(workers=1, drain_delay=timedelta(), drain_grace=timedelta()),
        [str(program), "\0"],  # no system takes that as an argument
        {},
        merged=Merged(tally.registry, {}),
        tally=tally,
        logger=log,  # type: ignore[arg-type]
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await supervisor.run() == 1
    assert log.events == ["supervisor failed"]
