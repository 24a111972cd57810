"""What tests of the authority for tests share."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from artstore.identity import (
    AdminClient,
)
from artstore.identity.testing import FakeAccount, FakeAuthority
from joserfc import jws

SECONDS = 10.0


def client(authority: FakeAuthority, account: FakeAccount, **options: Any) -> AdminClient:
    return AdminClient(authority.target, client_id=account.client_id, client_secret=account.client_secret, **options)


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(jws.extract_compact(token.encode()).payload)
    return claims


async def turned(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
