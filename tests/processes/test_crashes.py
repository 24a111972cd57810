"""kill -9 at random moments: what was acknowledged is there, and nothing is there twice."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import grpc
import pytest
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb

from tests.processes import chain
from tests.processes.service import Client, Installation, Service

T = TypeVar("T")

ACCOUNTS = 120
ROTATIONS = 80
KILLS = 12
WORKERS = 4
GIVE_UP_SECONDS = 100.0
LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
"""What a client sees of a server that dies, or isn't back yet."""


@dataclass
class Acknowledged:
    """Accounts by id: their client ids and every secret that was handed out."""

    client_ids: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, list[str]] = field(default_factory=dict)
    retries: int = 0
    count: int = 0


class Clients:
    """Workers that carry on through crashes: each request keeps its request_id until it is acknowledged."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self.known = Acknowledged()
        self._connect = connect
        self._lock = threading.Lock()
        self._deadline = time.monotonic() + GIVE_UP_SECONDS

    def live(self, number: int) -> None:
        """One account's life: created, and two of three rotated once."""
        made = self._persist(lambda client, request_id: client.create(f"account {number}", request_id))
        account = made.service_account
        with self._lock:
            self.known.client_ids[account.id] = account.client_id
            self.known.secrets[account.id] = [made.client_secret]
        if number < ROTATIONS:
            rotated = self._persist(lambda client, request_id: client.rotate(account.id, request_id))
            with self._lock:
                self.known.secrets[account.id].append(rotated.client_secret)

    def _persist(self, send: Callable[[Client, str], T]) -> T:
        request_id = str(uuid4())
        while True:
            try:
                done = send(self._connect(), request_id)
            except grpc.RpcError as error:
                if error.code() not in LOST or time.monotonic() > self._deadline:
                    raise
                self.known.retries += 1
                time.sleep(0.02)
            else:
                with self._lock:
                    self.known.count += 1
                return done


class Crashing:
    """A service that is killed and started again while clients use it."""

    def __init__(self, service: Service, installation: Installation) -> None:
        self._service = service
        self._installation = installation
        self._client = Client(service.grpc_address, installation)
        self._bearer = self._client.bearer
        self._left: list[Client] = []

    def client(self) -> Client:
        return self._client

    def crash(self) -> None:
        self._service.kill()
        self._service.start()
        fresh = Client(self._service.grpc_address, self._installation, _bearer=self._bearer)
        self._left.append(self._client)
        self._client = fresh

    def close(self) -> None:
        """Only now: a worker may have been about to call on a connection to a dead process."""
        for client in (*self._left, self._client):
            client.channel.close()

    def crash_often(self, clients: Clients, dice: random.Random) -> int:
        """Kills after random numbers of acknowledgements, at random moments after these; how often."""
        kills, mark = 0, 0
        while kills < KILLS:
            mark += dice.randint(8, 15)
            while clients.known.count < mark:
                time.sleep(0.001)
            time.sleep(dice.random() * 0.03)  # anywhere in the next few requests
            self.crash()
            kills += 1
        return kills


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost(tmp_path: Path, installation: Installation) -> None:
    """Through twelve kills amid 200 creates and rotations: acknowledged accounts and secrets are there and work, each
    retried request was carried out once, and the ledger's chain holds with one row a change."""
    with Service(tmp_path / "service", installation.environment) as service:
        crashing = Crashing(service, installation)
        clients = Clients(crashing.client)
        with ThreadPoolExecutor(WORKERS) as pool:
            lives = [pool.submit(clients.live, number) for number in range(ACCOUNTS)]
            kills = crashing.crash_often(clients, random.Random())
            for life in lives:
                life.result()
        print(f"{clients.known.count} acknowledged, {kills} kills, {clients.known.retries} retries")
        crashing.crash()
        check(crashing.client(), clients.known)
        crashing.close()
    rows = chain.verified(installation.environment["ARTSTORE_DATABASE_URL"])
    assert rows == {
        "account.created": ACCOUNTS + 1,
        "secret.rotated": ROTATIONS,
        "key.created": 2,
        "ledger_key.created": 1,
    }


def check(client: Client, known: Acknowledged) -> None:
    """Exactly the acknowledged accounts exist, with the acknowledged secrets, and each secret gets a token."""
    request = accounts_pb.ListServiceAccountsRequest(page_size=1000)
    listed = client.accounts.ListServiceAccounts(request, metadata=client.bearer).service_accounts
    assert {account.id: len(account.secrets) for account in listed if not account.is_system} == {
        account_id: len(secrets) for account_id, secrets in known.secrets.items()
    }
    for account_id, secrets in known.secrets.items():
        for secret in secrets:
            assert client.issue(known.client_ids[account_id], secret).access_token
