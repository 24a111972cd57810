"""The drill of overload: ten times as many callers as saturate the service, in a closed loop; what is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes.service import Client, Installation, Service
from tests.processes.test_attack import raise_limit

STEPS = (1, 2, 4, 8, 16, 32, 64)
SATURATED = 0.95
"""Of the peak: so many callers saturate the service."""
TIMES = 10
STEP_SECONDS, OVERLOAD_SECONDS, RECOVERY_SECONDS = 3.0, 10.0, 5.0
GOODPUT = 0.8
"""Of the peak, at TIMES as many callers."""
HURRIED_GOODPUT = 0.4
"""Of the peak, where most of those who wait leave before their turn."""
MANY = 3000
LIGHT_GOODPUT = 0.4
"""Where other tests have the machine too."""
PATIENCE_SECONDS = 60.0
GROWTH_BYTES = 128 * 2**20


def crowd(
    address: str, callers: int, seconds: float, accounts: list[tuple[str, str]], patience: float = PATIENCE_SECONDS
) -> dict[str, Any]:
    """What came of so many callers, in a process of their own."""
    task = {"address": address, "callers": callers, "seconds": seconds, "accounts": accounts, "patience": patience}
    command = [sys.executable, "-m", "tests.processes.crowd"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        psutil.Process(process.pid).cpu_affinity(cores()[1:] or cores())
        out, _ = process.communicate(json.dumps(task), timeout=200)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


def cores() -> list[int]:
    """The service has the first, its callers the others."""
    return sorted(os.sched_getaffinity(0))


@contextmanager
def serving(folder: Path, installation: Installation, **settings: str) -> Iterator[tuple[Service, Any]]:
    """A service on one core, and the credentials of warm accounts."""
    with Service(folder / "service", installation.environment | settings) as service:
        with Client(service.grpc_address, installation) as client:
            made = [client.create(f"account {number}") for number in range(10)]
            accounts = [(each.service_account.client_id, each.client_secret) for each in made]
            for client_id, secret in accounts:
                client.issue(client_id, secret)
            for each in made:
                raise_limit(client, each.service_account.id)
        psutil.Process(service.pid).cpu_affinity(cores()[:1])
        yield service, accounts


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_goodput_holds(tmp_path: Path, on_sqlite: Installation) -> None:
    """At ten times the calls in flight that saturate it the service still does what it did at its peak, no admitted
    call takes much longer than its place in the queue explains, and 5 s later a call is as quick as before."""
    with serving(tmp_path, on_sqlite) as (service, accounts):
        curve = {callers: crowd(service.grpc_address, callers, STEP_SECONDS, accounts) for callers in STEPS}
        peak = max(each["goodput"] for each in curve.values())
        saturating = next(callers for callers in STEPS if curve[callers]["goodput"] >= SATURATED * peak)
        memory = psutil.Process(service.pid).memory_info().rss
        loaded = crowd(service.grpc_address, TIMES * saturating, OVERLOAD_SECONDS, accounts)
        after = crowd(service.grpc_address, 1, RECOVERY_SECONDS, accounts)
        grown = psutil.Process(service.pid).memory_info().rss - memory
    print(
        json.dumps(
            {"curve": curve, "saturating": saturating, "loaded": loaded, "after": after, "grown": grown}, indent=1
        )
    )
    assert set(loaded["codes"]) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert loaded["goodput"] >= GOODPUT * peak
    assert loaded["p99"] <= 3 * TIMES * saturating / peak
    assert after["p50 of the last second"] <= 2 * curve[1]["p50"]
    assert grown < GROWTH_BYTES


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_a_crowd_waits_its_turn(tmp_path: Path, on_sqlite: Installation) -> None:
    """Three thousand callers at once: they wait, in the queue of gRPC's core, for no longer than that many calls take;
    none is turned away there, and as many are served as ever. Where they have deadlines that are shorter than that
    queue the work for those who have left doesn't displace the others'."""
    with serving(tmp_path, on_sqlite) as (service, accounts):
        peak = crowd(service.grpc_address, 32, OVERLOAD_SECONDS, accounts)["goodput"]
        patient = crowd(service.grpc_address, MANY, OVERLOAD_SECONDS, accounts)
        hurried = crowd(service.grpc_address, MANY, OVERLOAD_SECONDS, accounts, patience=1.0)
        after = crowd(service.grpc_address, 1, RECOVERY_SECONDS, accounts)
    print(json.dumps({"peak": peak, "patient": patient, "hurried": hurried, "after": after}, indent=1))
    assert set(patient["codes"]) == {"OK"}
    assert patient["goodput"] >= GOODPUT * peak
    assert patient["p99"] <= 2 * MANY / peak
    assert set(hurried["codes"]) <= {"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
    assert hurried["goodput"] >= HURRIED_GOODPUT * peak
    assert set(after["codes"]) == {"OK"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_crowd_is_served_or_told(tmp_path: Path, on_sqlite: Installation) -> None:
    """The same in short, on a machine with other work: nobody is turned away without a word, and then all is as it
    was."""
    with serving(tmp_path, on_sqlite) as (service, accounts):
        peak = crowd(service.grpc_address, 32, 2.0, accounts)["goodput"]
        loaded = crowd(service.grpc_address, 1500, 4.0, accounts)
        after = crowd(service.grpc_address, 1, 1.0, accounts)
    assert set(loaded["codes"]) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert loaded["goodput"] >= LIGHT_GOODPUT * peak
    assert set(after["codes"]) == {"OK"}
