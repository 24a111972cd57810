"""Fixtures of the client's tests."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from artstore.identity import AdminClient

sys.path.insert(0, str(Path(__file__).parent))  # the tests are run from the repository's root and from here

from canned import Canned, canned_server


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Canned]:
    async with canned_server() as canned:
        yield canned


@pytest_asyncio.fixture
async def client(server: Canned) -> AsyncIterator[AdminClient]:
    async with AdminClient(server.target, client_id="sa_dev_test_00000000", client_secret="the-secret") as opened:
        yield opened
