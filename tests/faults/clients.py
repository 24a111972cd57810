"""What clients see while a fault lasts, and what they find afterwards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import grpc

from tests.installation import refusal
from tests.processes.service import Client, Installation, Service, until

HEALED_SECONDS = 30.0
CREATED = "artstore.identity.v1.ServiceAccountService"


@dataclass
class Witness:
    """Clients of one service: remembers what was acknowledged to them."""

    client: Client
    service: Service
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Secrets by client id."""

    def create(self) -> None:
        made = self.client.create(f"account {uuid4().hex}")
        self.acknowledged[made.service_account.client_id] = made.client_secret

    def warm(self) -> tuple[str, str]:
        """An account that has had a token."""
        client_id, secret = next(iter(self.acknowledged.items()))
        return client_id, secret

    def refused(self) -> tuple[grpc.StatusCode, str, float]:
        """How a create is refused, and after how many seconds; fails when it isn't."""
        started = time.monotonic()
        code, reason = refusal(self.create)
        return code, reason, time.monotonic() - started

    def creates(self) -> bool:
        try:
            self.create()
        except grpc.RpcError:
            return False
        return True

    def heals(self) -> float:
        """Waits until a create succeeds again, in the same process; then nothing acknowledged may be missing. The
        seconds that it took."""
        pid, started = self.service.pid, time.monotonic()
        until(self.creates, HEALED_SECONDS, "healed")
        seconds = time.monotonic() - started
        until(lambda: self.client.serving(CREATED), HEALED_SECONDS, "serving")
        assert self.service.running
        assert self.service.pid == pid
        for client_id, secret in self.acknowledged.items():
            assert self.client.issue(client_id, secret).access_token
        assert not any(line["event"] == "call failed unexpectedly" for line in self.service.lines())
        return seconds


@contextmanager
def witnessed(folder: Path, installation: Installation) -> Iterator[Witness]:
    """A service, its administrator's token and one warm account."""
    with (
        Service(folder / "service", installation.environment) as service,
        Client(service.grpc_address, installation) as client,
    ):
        made = Witness(client, service)
        made.create()
        client.issue(*made.warm())
        yield made
