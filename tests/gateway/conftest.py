"""A real service with two doors of its gateway: in its process, and alone behind a channel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import grpc
import httpx
import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb

from artstore_grpc.call import Call
from artstore_grpc.gateway.app import build
from artstore_grpc.gateway.channel import ChannelBackend
from artstore_grpc.gateway.server import GatewayServer
from artstore_grpc.listeners import bind
from artstore_grpc.settings import Address
from tests.installation import Installation

LOOPBACK = (ip_network("127.0.0.0/8"),)
ANY = Address(host="127.0.0.1", port=0)
PLENTY = 1_000_000
"""A rate limit that no test reaches."""


class Recorder:
    """A Backend that keeps what it was called with and answers, or raises, what a test put in `answer`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Call]] = []
        self.answer: Any = None
        self.called = asyncio.Event()

    async def __call__(self, message: Any, call: Call) -> Any:
        self.calls.append((message, call))
        self.called.set()
        if isinstance(self.answer, BaseException):
            raise self.answer
        return await self.answer() if callable(self.answer) else self.answer


class Door:
    """A gateway in front of a recorder, on a real socket."""

    def __init__(self, server: GatewayServer, backend: Recorder, client: httpx.AsyncClient) -> None:
        self.server, self.backend, self.client = server, backend, client

    @property
    def message(self) -> Any:
        return self.backend.calls[-1][0]

    @property
    def call(self) -> Call:
        return self.backend.calls[-1][1]


@asynccontextmanager
async def opened(trusted: Any = (), grace: timedelta = timedelta(seconds=1)) -> AsyncIterator[Door]:
    """A running gateway. `door.backend.answer` decides readiness too: an exception is not ready."""
    backend = Recorder()
    server = server_of(backend, trusted, grace)
    await server.start()
    async with client_of(server) as client:
        yield Door(server, backend, client)
    await server.stop()


def server_of(backend: Recorder, trusted: Any, grace: timedelta) -> GatewayServer:
    async def ready() -> bool:
        return not isinstance(backend.answer, Exception)

    return GatewayServer(build(backend, ready=ready, trusted_proxies=trusted), bind(ANY), grace)


def client_of(server: GatewayServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", verify=False)


@pytest.fixture(scope="session")
def shared() -> Iterator[tuple[GatewayServer, Recorder]]:
    """One gateway for many tests, in a thread: starting and stopping one takes longer than most of them."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    backend = Recorder()

    def run(work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    server = server_of(backend, (), timedelta(seconds=1))
    run(server.start())
    yield server, backend
    run(server.stop())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
async def door(shared: tuple[GatewayServer, Recorder]) -> AsyncIterator[Door]:
    """A gateway that trusts nobody; its recorder has heard nothing yet."""
    server, backend = shared
    backend.calls.clear()
    backend.answer = None
    async with client_of(server) as client:
        yield Door(server, backend, client)


@dataclass
class Stage:
    """A service, the URLs of its doors by name, and the values of the placeholders in the tables."""

    installation: Installation
    urls: dict[str, str]
    names: dict[str, str]


def credentials(installation: Installation) -> dict[str, str]:
    """One account for every fate, and its once good secret."""
    names: dict[str, str] = {"issuer": installation.issuer}
    metadata = installation.bearer()
    now = installation.clock.offset
    for fate in ("", "other", "suspended", "deleted", "rotated", "introspector", "spent", "expired"):
        installation.clock.offset = now - timedelta(days=91) if fate == "expired" else now
        limit = 1 if fate == "spent" else PLENTY
        allowed = ["artstore", "https://allowed.example/"]
        account = installation.account(rate_limit=limit, introspection_only=fate == "introspector", audiences=allowed)
        installation.clock.offset = now
        prefix = f"{fate}_" if fate else ""
        names |= {f"{prefix}id": account.client_id, f"{prefix}secret": account.secret, f"{prefix}uuid": account.id}
    accounts = installation.accounts
    accounts.SuspendServiceAccount(pb.SuspendServiceAccountRequest(id=names["suspended_id"]), metadata=metadata)
    accounts.DeleteServiceAccount(pb.DeleteServiceAccountRequest(id=names["deleted_id"]), metadata=metadata)
    rotation = pb.RotateSecretRequest(id=names["rotated_id"])
    rotation.overlap.SetInParent()
    accounts.RotateSecret(rotation, metadata=metadata)
    good = names["secret"]
    changed = good[:-1] + ("a" if good[-1] != "a" else "b")
    more = {"ID": names["id"].upper(), "SECRET": good.upper(), "secret_cut": good[:-1], "secret_changed": changed}
    return names | more


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The service, and beside it a gateway that knows it only through a channel. Both believe the tests' forwarding
    headers, so that every case can come from an address of its own and no back-off of one reaches another."""
    with Installation(tmp_path_factory.mktemp("gateway"), trusted_proxies=LOOPBACK) as installation:

        async def alone() -> tuple[GatewayServer, grpc.aio.Channel]:
            channel = grpc.aio.insecure_channel(str(installation.started.grpc_address))
            backend = ChannelBackend(channel)
            server = GatewayServer(
                build(backend, ready=backend.ready, trusted_proxies=LOOPBACK), bind(ANY), timedelta(seconds=1)
            )
            await server.start()
            return server, channel

        async def ended() -> None:
            await server.stop()
            await channel.close()

        server, channel = installation.run(alone())
        urls = {"in process": installation.url, "alone": f"http://127.0.0.1:{server.port}"}
        yield Stage(installation, urls, credentials(installation))
        installation.run(ended())


@pytest.fixture(params=["in process", "alone"])
def url(request: pytest.FixtureRequest, stage: Stage) -> str:
    """Each door of the service."""
    return stage.urls[request.param]


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    """One client for all: making one costs more than a hundred requests."""
    with httpx.Client() as client:
        yield client
