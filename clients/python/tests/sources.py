"""Token sources of both kinds as an awaiting test uses them, and what the server answers them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc
from artstore.identity import (
    SyncTokenSource,
    TokenSource,
)
from artstore.identity.errors import DOMAIN
from artstore.identity.v1 import token_service_pb2 as pb
from canned import Canned, Refused
from google.rpc.error_details_pb2 import ErrorInfo

ME = {"client_id": "sa_dev_test_00000000", "client_secret": "the-secret"}
LIFE = 1800


class Source(Protocol):
    """A source of either kind, as an awaiting test uses it."""

    async def token(self, **options: Any) -> str: ...
    def invalidate(self, token: str) -> bool: ...


class Threaded:
    """A SyncTokenSource, each call in a thread: the server of the test lives on the loop."""

    def __init__(self, source: SyncTokenSource) -> None:
        self.source = source
        self.invalidate = source.invalidate
        self.pool = ThreadPoolExecutor(64)

    async def token(self, **options: Any) -> str:
        return await asyncio.get_running_loop().run_in_executor(self.pool, lambda: self.source.token(**options))


@asynccontextmanager
async def opened(kind: str, target: str, **options: Any) -> AsyncIterator[Source]:
    options = options if "credentials" in options or "private_key" in options else ME | options
    if kind == "asyncio":
        async with TokenSource(target, **options) as source:
            yield source
    else:
        with SyncTokenSource(target, **options) as threaded:
            made = Threaded(threaded)
            yield made
        await asyncio.to_thread(made.pool.shutdown)


def tokens(server: Canned, life: int = LIFE) -> None:
    """Makes the server issue `token-1`, `token-2`, …"""
    server.answers["IssueToken"] = lambda _: pb.IssueTokenResponse(
        access_token=f"token-{asked(server)}", expires_in=life
    )


def asked(server: Canned) -> int:
    return len(server.named("IssueToken"))


def flying(source: Source) -> bool:
    """Whether a request is under way."""
    inner = source.source if isinstance(source, Threaded) else source
    assert isinstance(inner, TokenSource | SyncTokenSource)
    return any(entry.flying for entry in list(inner._cache._entries.values()))


def failing(code: grpc.StatusCode, reason: str, *details: Any, times: int = 1_000_000) -> Callable[[Any], Any]:
    """Refuses so many times, then issues `token`."""
    left = [times]

    def answer(_: Any) -> pb.IssueTokenResponse:
        left[0] -= 1
        if left[0] < 0:
            return pb.IssueTokenResponse(access_token="token", expires_in=LIFE)
        raise Refused(code, "No.", ErrorInfo(reason=reason, domain=DOMAIN), *details)

    return answer
