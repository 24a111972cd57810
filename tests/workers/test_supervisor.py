"""What a supervisor does about a worker that neither serves nor ends. The workers here are bare programs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta
from typing import Any

import pytest

from artstore_grpc.settings import Settings
from artstore_grpc.telemetry.merging import Merged
from artstore_grpc.workers.supervisor import Supervisor
from artstore_grpc.workers.tally import Tally

SILENCE_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
WORKER = """
import socket, sys, time
end = socket.socket(fileno=int(sys.argv[1]))
end.recv(65536)
end.sendall(b'{"ready":true}\\n')
"""
SLEEPS = "\ntime.sleep(600)"


class Said:
    """A log that is kept."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.died = asyncio.Event()

    def __getattr__(self, level: str) -> Any:
        return self._keep

    def _keep(self, event: str, **_: object) -> None:
        self.events.append(event)
        if event == "worker died":
            self.died.set()


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
        await log.died.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await running == 0
    assert log.events.index(said) < log.events.index("worker died")
