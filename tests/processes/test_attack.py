"""The drill: guesses at a thousand a second, and the clients that the secrets belong to."""

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
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from google.protobuf.field_mask_pb2 import FieldMask

from tests.processes.service import Client, Installation, Service

ACCOUNTS = 10
SOURCES = [f"10.0.0.{number}" for number in range(50)]
ATTEMPTS_A_SECOND = 1000
RIGHTFUL_A_SECOND = 40
QUIET_SECONDS, BEGINNING_SECONDS, ATTACK_SECONDS = 5.0, 5.0, 10.0
LIGHT_ATTEMPTS_A_SECOND, LIGHT_SECONDS = 150, 5.0
LONGEST_P99_SECONDS, LIGHT_P99_SECONDS = 0.05, 5.0
GROWTH_BYTES = 64 * 2**20
REPEATS = 3
"""The machine has other work; a service that is slowed by an attack is so each time."""


def begin(
    who: str, address: str, seconds: float, rate: float, accounts: Any, sources: Any, beginning: float = 0.0
) -> Any:
    """Callers in a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.processes.attack", who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    cores = sorted(os.sched_getaffinity(0))
    psutil.Process(process.pid).cpu_affinity(cores[1:] or cores)  # the service has the first
    task = {"address": address, "seconds": seconds, "beginning": beginning, "rate": rate}
    assert process.stdin is not None
    process.stdin.write(json.dumps(task | {"accounts": accounts, "sources": sources}))
    process.stdin.close()
    process.stdin = None
    return process


def ended(process: Any) -> dict[str, Any]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    told: dict[str, Any] = json.loads(out)
    return told


@pytest.mark.drill
@pytest.mark.timeout(300)
def test_rightful_clients_notice_nothing(tmp_path: Path, on_sqlite: Installation) -> None:
    """1,000 wrong attempts a second from 50 sources on 10 accounts: their warm clients lose no call, from the first one
    on; once the sources have used up what is free their p99 stays within three times its quiet value or 50 ms; the
    service's memory is bounded, and no guess is let in."""
    with under_attack(tmp_path, on_sqlite) as (service, accounts):
        tried = []
        for _ in range(REPEATS):
            tried.append(drill(service.pid, service.grpc_address, accounts, ATTEMPTS_A_SECOND, ATTACK_SECONDS))
            print(json.dumps(tried[-1], indent=1))
            if tried[-1]["p99"] <= bound(tried[-1]):
                break
    for each in tried:
        assert_harmless(each)
    assert tried[-1]["p99"] <= bound(tried[-1])
    assert max(each["offered"] for each in tried) >= 0.9 * ATTEMPTS_A_SECOND


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_rightful_clients_lose_no_call(tmp_path: Path, on_sqlite: Installation) -> None:
    """The same at a rate that a machine with other work can bear: no call of theirs is lost, nor waits for long."""
    with under_attack(tmp_path, on_sqlite) as (service, accounts):
        found = drill(service.pid, service.grpc_address, accounts, LIGHT_ATTEMPTS_A_SECOND, LIGHT_SECONDS, SOURCES[:5])
    assert_harmless(found)
    assert found["p99"] < LIGHT_P99_SECONDS
    assert found["attackers"]["RESOURCE_EXHAUSTED"]


def assert_harmless(found: dict[str, Any]) -> None:
    assert set(found["rightful"]) == {"OK"}
    assert "OK" not in found["attackers"]
    assert found["grown"] < GROWTH_BYTES


@contextmanager
def under_attack(folder: Path, installation: Installation) -> Iterator[tuple[Service, list[tuple[str, str]]]]:
    """A service that believes its callers' addresses, and the credentials of accounts that are warm."""
    environment = installation.environment | {"ARTSTORE_TRUSTED_PROXIES": "127.0.0.0/8"}
    with Service(folder / "service", environment) as service:
        with Client(service.grpc_address, installation) as client:
            made = [client.create(f"account {number}") for number in range(ACCOUNTS)]
            accounts = [(each.service_account.client_id, each.client_secret) for each in made]
            for client_id, secret in accounts:
                client.issue(client_id, secret)
            for each in made:
                raise_limit(client, each.service_account.id)
        yield service, accounts


def bound(tried: dict[str, Any]) -> float:
    """What the p99 may be, in seconds."""
    return max(3 * float(tried["quiet p99"]), LONGEST_P99_SECONDS)


def raise_limit(client: Client, account_id: str) -> None:
    """Gives an account a limit that is not what is measured."""
    account = accounts_pb.ServiceAccount(id=account_id, rate_limit=1_000_000)
    request = accounts_pb.UpdateServiceAccountRequest(
        service_account=account, update_mask=FieldMask(paths=["rate_limit"])
    )
    client.accounts.UpdateServiceAccount(request, metadata=client.bearer)


def drill(
    pid: int, address: str, accounts: list[tuple[str, str]], rate: float, seconds: float, sources: list[str] = SOURCES
) -> dict[str, Any]:
    """The same clients in quiet, as the attack begins, and as it goes on."""

    def rightful(lasting: float, beginning: float = 0.0) -> dict[str, Any]:
        return ended(begin("rightful", address, lasting, RIGHTFUL_A_SECOND, accounts, ["10.1.0.1"], beginning))

    server = psutil.Process(pid)
    server.cpu_affinity(sorted(os.sched_getaffinity(0))[:1])
    quiet = rightful(QUIET_SECONDS)
    memory = server.memory_info().rss
    attack = begin("attackers", address, 2 * BEGINNING_SECONDS + seconds, rate, accounts, sources)
    found = rightful(BEGINNING_SECONDS + seconds, BEGINNING_SECONDS)
    attacked = ended(attack)
    return {
        "rightful": found["codes"],
        "attackers": attacked["codes"],
        "offered": attacked["rate"],
        "left out": attacked["left_out"],
        "quiet p99": quiet["p99"],
        "p99 as it begins": found["p99 as it begins"],
        "p99": found["p99"],
        "p50": found["p50"],
        "grown": server.memory_info().rss - memory,
    }
