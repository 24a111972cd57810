"""A worker that hangs is replaced; one that is busy, drains, starts, or was paused with everybody else is not."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from artstore_grpc.workers.supervisor import LAST_SECONDS, LISTENING_SECONDS
from tests.processes.service import Client, Installation, Service, until
from tests.processes.workers import (
    CONNECTIONS,
    STOP_SECONDS,
    deaths,
    gone,
    issue_over_new_connections,
    ready,
    served,
    workers,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SILENCE_SECONDS = 10.0
"""Of reports that come each second; on a busy machine."""
PROGRAM = f"""
import asyncio, sys
from artstore_grpc.cli import environment, supervise
sys.exit(asyncio.run(supervise.supervised(environment.settings(), "artstore-grpc", silence_seconds={SILENCE_SECONDS})))
"""
IMPATIENT = [sys.executable, "-c", PROGRAM]
"""`serve`, whose supervisor waits no longer than that for a worker's word."""


def test_a_worker_that_hangs_is_replaced(tmp_path: Path, on_sqlite: Installation) -> None:
    """One that is stopped, with its doors open, is killed once it has told nothing for a while, and one that answers
    takes its place; the other is left alone."""
    with served(tmp_path, on_sqlite, 2, IMPATIENT) as service:
        hung, other = workers(service)
        os.kill(hung, signal.SIGSTOP)
        line = service.logged("worker hangs")
        assert line["silent_seconds"] == SILENCE_SECONDS
        died = service.logged("worker died")
        assert (died["worker"], died["code"]) == (line["worker"], -signal.SIGKILL)
        until(ready(service, 2), STOP_SECONDS, "both ready")
        assert gone([hung])
        assert other in workers(service)
        issue_over_new_connections(service, on_sqlite, CONNECTIONS)
        assert deaths(service) == 1


def test_who_is_busy_or_drains_does_not_hang(tmp_path: Path, on_sqlite: Installation) -> None:
    """A worker that hashes for longer than one may be silent, and drains as long, is left alone: it goes on telling,
    and what it was asked is answered."""
    slow = {
        "ARTSTORE_DRAIN_DELAY": str(SILENCE_SECONDS + 3),
        "ARTSTORE_DRAIN_GRACE": "40",
        "ARTSTORE_BCRYPT_COST": "15",  # two seconds
    }
    with served(tmp_path, on_sqlite, 2, IMPATIENT, **slow) as service:
        with Client(service.grpc_address, on_sqlite) as client:
            assert client.bearer
            asked, made = time.monotonic(), 0
            service.terminate()
            while time.monotonic() - asked < SILENCE_SECONDS:
                made += bool(client.create(f"account {made}").client_secret)
            print(f"{made} hashes in {time.monotonic() - asked:.1f} s")
        assert service.wait(STOP_SECONDS) == 0
        assert not {"worker hangs", "worker killed", "worker died"} & {line["event"] for line in service.lines()}


def test_who_starts_for_long_does_not_hang(tmp_path: Path, on_sqlite: Installation) -> None:
    """A worker that waits for its database may do so for ever, and those who wait for it; one that is stopped while it
    starts is killed, and another one starts in its place."""
    nowhere = {"ARTSTORE_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing", "ARTSTORE_WORKERS": "2"}
    service = Service(tmp_path, on_sqlite.environment | nowhere, IMPATIENT)
    try:
        service.spawn().logged("waiting for the database")
        starting = workers(service)
        time.sleep(SILENCE_SECONDS + 3)
        assert workers(service) == starting
        assert not any(line["event"] == "worker hangs" for line in service.lines())
        for pid in starting:
            os.kill(pid, signal.SIGSTOP)
        assert service.logged("worker hangs")["worker"] == 0
        for pid in starting:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        until(lambda: len(set(workers(service)) - set(starting)) == 1, STOP_SECONDS, "another one")
        service.terminate()
        assert service.wait(STOP_SECONDS) == 0
        assert deaths(service) == 1
    finally:
        service.kill()


def test_a_pause_of_all_costs_nobody(tmp_path: Path, on_sqlite: Installation) -> None:
    """Where machine or container stood still for longer than a worker may be silent, the same workers go on, although
    the supervisor wakes first."""
    with served(tmp_path, on_sqlite, 2, IMPATIENT) as service:
        pids = workers(service)
        everybody = [service.pid, *pids]
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(SILENCE_SECONDS + 3)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        time.sleep(2 * LISTENING_SECONDS)
        assert workers(service) == pids
        assert not {"worker hangs", "worker died"} & {line["event"] for line in service.lines()}
        issue_over_new_connections(service, on_sqlite, 2)


def test_a_stop_does_not_wait_for_one_that_hangs(tmp_path: Path, on_sqlite: Installation) -> None:
    """On SIGTERM a worker that is stopped is killed when its time for last words is over, the other ends by itself, and
    so does the service."""
    delay, grace = 1, 4
    bounds = {"ARTSTORE_DRAIN_DELAY": str(delay), "ARTSTORE_DRAIN_GRACE": str(grace)}
    with served(tmp_path, on_sqlite, 2, **bounds) as service:
        pids = workers(service)
        os.kill(pids[0], signal.SIGSTOP)
        asked = time.monotonic()
        service.terminate()
        assert service.wait(STOP_SECONDS) == 0
        took = time.monotonic() - asked
        assert gone(pids)
        events = [line["event"] for line in service.lines()]
        assert (events.count("worker killed"), events.count("stopped")) == (1, 2)  # one worker, and the supervisor
        assert took < delay + grace + LAST_SECONDS + 5  # on a busy machine
