"""SIGKILL of one of three replicas amid tokens, writes and rotations that are due: clients of the SDK go on, nothing
that was acknowledged is lost, nothing is rotated twice."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from artstore.identity import AdminClient, ServiceAccount
from artstore.identity import Client as SdkClient
from artstore.identity.v1.service_account_service_pb2 import Role

from artstore_grpc import ledger
from artstore_grpc.store.sql import SqlStore
from tests.faults.test_stops import states, url_of
from tests.processes import chain
from tests.processes.balancer import Balancer, free_ports
from tests.processes.service import Client, Installation, Service, together, until
from tests.processes.steady import NEVER_AGAIN, SteadyLoad, sdk, unlimited
from tests.rotation import served as served_module
from tests.rotation.test_processes import TAKEN_OVER_SECONDS, make_due, managed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MANAGED = 6
"""Accounts whose secrets the service rotates, all due at the kill."""
KEY_INTERVAL_SECONDS = 4
WRITERS = 3
RATE, BURST = 36.0, 36
CALL = timedelta(seconds=20)
SETTINGS = {"ARTSTORE_JWKS_MAX_AGE": "1", "ARTSTORE_KEY_ROTATION_INTERVAL": str(KEY_INTERVAL_SECONDS)}


@dataclass
class Writers:
    """Create accounts, and rotate their secrets, by the SDK with request ids, until they are ended; they keep every
    secret that was acknowledged."""

    target: str
    installation: Installation
    secrets: dict[str, list[str]] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write()), daemon=True)

    def __enter__(self) -> Writers:
        self._thread.start()
        until(lambda: len(self.secrets) > WRITERS, 60, "accounts are created")
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _write(self) -> None:
        who = self.installation.administrator
        admin = AdminClient(self.target, client_id=who.client_id, client_secret=who.client_secret, timeout=CALL)
        async with AsyncExitStack() as stack:
            # Each over a connection of its own: the balancer spreads connections.
            writers = [await stack.enter_async_context(admin.again()) for _ in range(WRITERS)]
            await asyncio.gather(*map(self._writer, writers))

    async def _writer(self, admin: AdminClient) -> None:
        while not self._ended.is_set():
            try:
                account = ServiceAccount(name=f"written {uuid4().hex}", role=Role.ROLE_USER)
                made = await admin.create_service_account(account, request_id=str(uuid4()))
                known = self.secrets.setdefault(made.service_account.client_id, [made.client_secret])
                rotated = await admin.rotate_secret(made.service_account.id, request_id=str(uuid4()))
                known.append(rotated.client_secret)
            except Exception as error:
                self.failures.append(error)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the sink writes to."""
    made = tmp_path / "sink"
    made.mkdir()
    return made


def test_a_replica_is_killed(tmp_path: Path, folder: Path, on_postgres: Installation, redis_url: str) -> None:
    """Of three replicas behind a TCP balancer the one that rotates is killed, with calls of all kinds in flight."""
    program = [sys.executable, served_module.__file__, str(folder)]
    ports = free_ports(3)
    environment = on_postgres.environment | SETTINGS | {"ARTSTORE_REDIS_URL": redis_url}
    services = [
        Service(tmp_path / str(port), environment | {"ARTSTORE_GRPC_ADDRESS": f"127.0.0.1:{port}"}, program)
        for port in ports
    ]
    with ExitStack() as stack:
        stack.enter_context(together(services))
        with Client(services[0].grpc_address, on_postgres) as client:
            account = unlimited(client)
            rotating = [managed(client, f"managed {number}")[0] for number in range(MANAGED)]
        balancer = stack.enter_context(Balancer(ports))
        target = balancer.address
        issuing, once = sdk(3, target=target, **account), sdk(3, NEVER_AGAIN, target=target, **account)
        writers = Writers(target, on_postgres)
        with SteadyLoad(RATE, issuing, once, burst=BURST), writers:
            (folder / "before").touch()  # so that the kill meets a rotation that is under way
            for each in rotating:
                make_due(on_postgres, each.id)
            until(lambda: list(folder.glob("before.*")), TAKEN_OVER_SECONDS, "a delivery under way")
            (hung,) = folder.glob("before.*")
            victim = next(service for service in services if str(service.pid) == hung.suffix[1:])
            (folder / "before").unlink()
            victim.kill()
            killed, written = time.monotonic(), len(writers.secrets)
            until(lambda: len(writers.secrets) >= written + 10, 60, "writes go on")
            recovered = time.monotonic() - killed
            until(lambda: delivered(folder) == MANAGED, TAKEN_OVER_SECONDS, "the others rotate and deliver what is due")
            taken_over = time.monotonic() - killed
            victim.start()
        print(f"tokens with the SDK's retries: {issuing}")
        print(f"tokens with max_attempts=1: {once}")
        print(
            f"{len(writers.secrets)} accounts written, {len(writers.failures)} calls failed; ten more after the kill"
            f" in {recovered:.2f} s; due rotations done {taken_over:.1f} s after it"
        )
        assert issuing.failed == 0, issuing
        assert writers.failures == []
        until(lambda: kinds_of(on_postgres)["secret.delivered"] == MANAGED, TAKEN_OVER_SECONDS, "that it was is told")
        check_secrets(target, writers.secrets)
    check_ledger(on_postgres, writers.secrets)


def delivered(folder: Path) -> int:
    return len([path for path in folder.iterdir() if path.name.startswith("sa_")])


def check_secrets(target: str, secrets: dict[str, list[str]]) -> None:
    """Each secret that was acknowledged gets a token."""

    async def check() -> None:
        for client_id, known in secrets.items():
            for secret in known:
                async with SdkClient(target, client_id=client_id, client_secret=secret, timeout=CALL) as client:
                    assert (await client.issue_token()).access_token

    asyncio.run(check())


def check_ledger(installation: Installation, secrets: dict[str, list[str]]) -> None:
    """The chain holds; each change that was asked for is there once; each due secret was rotated once, each key became
    active once, and no sooner than its interval after the one before."""
    kinds = chain.verified(url_of(installation))
    rows = asyncio.run(ledger_rows(url_of(installation)))
    rotations = Counter(row.subject for row in rows if row.kind == "secret.rotated")
    assert set(rotations.values()) == {1}
    assert kinds["secret.rotated"] == MANAGED + sum(len(known) - 1 for known in secrets.values())
    assert kinds["secret.delivered"] == MANAGED
    assert kinds["account.created"] == 2 + MANAGED + len(secrets)
    activated = [row for row in rows if row.kind == "key.activated"]
    assert len({row.subject for row in activated}) == len(activated) >= 2
    assert list(states(installation).values()).count("active") == 1
    gaps = [(after.time - before.time).total_seconds() for before, after in pairwise(activated)]
    assert min(gaps) > KEY_INTERVAL_SECONDS - 1, "a key was rotated twice"
    print(f"{len(rows)} ledger rows, {kinds['secret.rotated']} rotations of secrets, {len(activated)} of keys")


def kinds_of(installation: Installation) -> Counter[str]:
    return Counter(row.kind for row in asyncio.run(ledger_rows(url_of(installation))))


async def ledger_rows(url: str) -> list[Any]:
    store = SqlStore(url)
    try:
        rows: list[Any] = []
        while page := await store.ledger(rows[-1].sequence if rows else ledger.GENESIS[0], chain.PAGE):
            rows.extend(page)
        return rows
    finally:
        await store.close()
