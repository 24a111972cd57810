"""Several workers as operators run them, and clients that keep calling them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import grpc
import psutil
from artstore import identity
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1 import token_service_pb2_grpc

from artstore_grpc.installation import Administrator
from tests.processes.service import SERVE, Client, Installation, Service, until

STOP_SECONDS = 60.0
CALL_SECONDS = 20.0
CONNECTIONS = 24
"""Enough that by chance not one of two workers goes without: 2 ** -23."""
ANEW: tuple[tuple[str, Any], ...] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def workers(service: Service) -> list[int]:
    """The processes of the workers."""
    return sorted(child.pid for child in psutil.Process(service.pid).children())


def gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def ready(service: Service, count: int) -> Callable[[], bool]:
    return lambda: service.metrics().get("artstore_workers") == count


@contextmanager
def served(
    folder: Path, installation: Installation, count: int, command: Sequence[str] = SERVE, **environment: str
) -> Iterator[Service]:
    """A service of so many workers, ready; nothing of it runs any more afterwards."""
    service = Service(folder, installation.environment | {"ARTSTORE_WORKERS": str(count)} | environment, command)
    pids: list[int] = []
    try:
        service.start()
        yield service
        if service.running:
            pids = workers(service)
    finally:
        service.kill()
        for pid in pids:
            if not gone([pid]):
                psutil.Process(pid).kill()


def callers_of(pid: int, address: str) -> set[int]:
    """The ports of those that are connected to a process at an address, as it sees them itself."""
    port = int(address.rpartition(":")[2])
    return {
        each.raddr.port
        for each in psutil.Process(pid).net_connections("tcp")
        if each.raddr and each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED
    }


def issue_over_new_connections(service: Service, installation: Installation, count: int) -> None:
    who = installation.administrator
    for _ in range(count):
        with Client(service.grpc_address, installation) as client:
            assert client.issue(who.client_id, who.client_secret).access_token


def deaths(service: Service) -> int:
    return sum(line["event"] == "worker died" for line in service.lines())


def caller(address: str, installation: Installation) -> Administrator:
    """A new account's credentials, whose limit is none for a load."""
    message = accounts_pb.ServiceAccount(name=f"caller {uuid4()}", role=accounts_pb.ROLE_USER, rate_limit=1_000_000)
    request = accounts_pb.CreateServiceAccountRequest(service_account=message)
    with Client(address, installation) as client:
        made = client.accounts.CreateServiceAccount(request, metadata=client.bearer, timeout=STOP_SECONDS)
    return Administrator(made.service_account.client_id, made.client_secret)


class Load:
    """Callers that each issue tokens over a connection of their own, one call after the other, until the end."""

    def __init__(
        self, address: str, installation: Installation, callers: int, *, retries: bool, anew: bool = False
    ) -> None:
        """`retries`: by the client library as it comes, else by gRPC as it comes, which repeats what no server has seen
        and nothing else. `anew`: by a new connection for every call."""
        self._address = address
        self._who = caller(address, installation)
        self._anew = anew
        who = self._who
        self._request = tokens_pb.IssueTokenRequest(
            grant_type="client_credentials", client_id=who.client_id, client_secret=who.client_secret
        )
        self._stop = threading.Event()
        self._lock = threading.Lock()
        target = self._persist if retries else self._call
        self._threads = [threading.Thread(target=target, daemon=True) for _ in range(callers)]
        self.succeeded = 0
        self.failed: Counter[str] = Counter()
        self.slowest = 0.0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        try:
            until(lambda: self.succeeded > len(self._threads), STOP_SECONDS, "tokens")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _persist(self) -> None:
        asyncio.run(self._repeat())

    async def _repeat(self) -> None:
        """With retries."""
        account = {"client_id": self._who.client_id, "client_secret": self._who.client_secret}
        client = identity.Client(self._address, **account).again()
        await client.__aenter__()
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                await client.issue_token()
            except identity.IdentityError as error:
                self._fail(f"{error.code.name}: {error.message}")
            else:
                self._succeed(started)
            if self._anew:
                await client.close()
                client = client.again()
                await client.__aenter__()
        await client.close()

    def _call(self) -> None:
        """Without."""
        channel = grpc.insecure_channel(self._address, ANEW)
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                token_service_pb2_grpc.TokenServiceStub(channel).IssueToken(self._request, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                self._fail(f"{error.code().name}: {error.details()}")
                self._stop.wait(0.02)
            else:
                self._succeed(started)
            if self._anew:
                channel.close()
                channel = grpc.insecure_channel(self._address, ANEW)
        channel.close()

    def _succeed(self, started: float) -> None:
        with self._lock:
            self.succeeded += 1
            self.slowest = max(self.slowest, time.monotonic() - started)

    def _fail(self, how: str) -> None:
        with self._lock:
            self.failed[how] += 1

    def goes_on(self, calls: int = 50) -> None:
        """Waits until so many more calls have succeeded."""
        mark = self.succeeded + calls
        until(lambda: self.succeeded >= mark, STOP_SECONDS, "more tokens")
