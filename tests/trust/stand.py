"""What the tests of the trust feed share: streams, tokens, slow readers, and the feed of the Python client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from artstore.identity import Client, TrustFeed
from artstore.identity.v1 import token_service_pb2 as pb
from joserfc.jws import extract_compact

from artstore_grpc.watches import Watches
from tests.installation import Account, Installation

SECONDS = 30.0
"""For what comes within moments, on a busy machine."""


def settled(installation: Installation) -> None:
    """Waits until the second key is there."""
    deadline = time.monotonic() + SECONDS
    while len(installation.tokens.GetJsonWebKeySet(pb.GetJsonWebKeySetRequest()).keys) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Watch:
    """An open stream, read message by message."""

    def __init__(self, service: Installation, token: str, after_sequence: int = 0, after_hash: bytes = b"") -> None:
        request = pb.WatchTrustRequest(after_sequence=after_sequence, after_hash=after_hash)
        metadata = (("authorization", f"Bearer {token}"),)
        self.stream: Any = service.tokens.WatchTrust(request, metadata=metadata, timeout=SECONDS)

    def next(self) -> pb.WatchTrustResponse:
        message: pb.WatchTrustResponse = next(self.stream)
        return message

    def until(self, kind: str) -> pb.WatchTrustResponse:
        """The next message of a kind; what comes before is heartbeats."""
        while (message := self.next()).WhichOneof("content") != kind:
            assert message.WhichOneof("content") in ("heartbeat", "snapshot")
        return message

    def rest(self) -> list[pb.WatchTrustResponse]:
        return list(self.stream)

    def close(self) -> None:
        self.stream.cancel()


def token_of(service: Installation, account: Account) -> str:
    return service.token(account.client_id, account.secret)


def revoke(service: Installation, account: Account, token: str) -> None:
    service.tokens.RevokeToken(
        pb.RevokeTokenRequest(token=token, client_id=account.client_id, client_secret=account.secret)
    )


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(extract_compact(token.encode()).payload)
    return claims


def slow_reader(service: Installation, token: str) -> tuple[grpc.Channel, Any]:
    """A stream whose snapshot is long, and that takes in a window of 64 KiB, and no more, without being read."""
    trust = watches_of(service).trust

    async def fill() -> None:
        trust._revoked.update({f"{number:032x}": (2_000_000_000, "a") for number in range(100_000)})
        trust._snapshot = None

    service.run(fill())
    options = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65535))
    channel = grpc.insecure_channel(str(service.started.grpc_address), options=options)
    call: Any = channel.unary_stream("/artstore.identity.v1.TokenService/WatchTrust")
    return channel, call(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=30)


async def forget_snapshot(trust: Any) -> None:
    trust._snapshot = None


def watches_of(service: Installation) -> Any:
    """The streams of this installation: found by its database, since no door leads to them."""
    found = [each for each in gc.get_objects() if type(each) is Watches]
    database = str(service.settings.data_dir / "identity.db")
    return next(each for each in found if each._replica._store._database._engine.url.database == database)


@contextlib.asynccontextmanager
async def followed(service: Installation, account: Account) -> AsyncIterator[TrustFeed]:
    async with (
        Client(str(service.started.grpc_address), client_id=account.client_id, client_secret=account.secret) as client,
        TrustFeed(client) as feed,
    ):
        await asyncio.wait_for(feed.ready(), SECONDS)
        yield feed


async def turned(condition: Any, seconds: float = SECONDS) -> float:
    """Waits until a condition holds, and says how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        await asyncio.sleep(0.001)
    return time.monotonic() - started
