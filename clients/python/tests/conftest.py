"""Fixtures of the client's tests."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from artstore.identity import AdminClient, Client
from artstore.identity.testing import FakeAuthority

sys.path.insert(0, str(Path(__file__).parent))  # the tests are run from the repository's root and from here

from canned import Canned, canned_server
from issuer import Hands
from verifying import REAL, Told


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Canned]:
    async with canned_server() as canned:
        yield canned


@pytest_asyncio.fixture
async def client(server: Canned) -> AsyncIterator[AdminClient]:
    async with AdminClient(server.target, client_id="sa_dev_test_00000000", client_secret="the-secret") as opened:
        yield opened


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest_asyncio.fixture
async def told(server: Canned, hands: Hands) -> AsyncIterator[Told]:
    async with Client(server.target, client_id="sa_dev_b_00000001", client_secret="s") as client:
        made = Told(client, hands)
        made.snapshot(REAL)
        yield made


@pytest.fixture(params=["asyncio", "threads"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture
async def authority() -> AsyncIterator[FakeAuthority]:
    async with FakeAuthority() as started:
        yield started
