"""Whether the process lives and whether it can serve, for probes that speak HTTP. Neither answer may be cached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from artstore_grpc.gateway.answers import Answer, encoded
from artstore_grpc.gateway.dialects import API_HEADERS
from artstore_grpc.gateway.endpoint import Handler
from artstore_grpc.gateway.exchange import Exchange


async def live(exchange: Exchange) -> Answer:
    """200 as long as the process answers at all; no dependency is asked."""
    return Answer(200, API_HEADERS, encoded({"status": "live"}))


def readiness(ready: Callable[[], Awaitable[bool]]) -> Handler:
    """200 where tokens can be had here, else 503, which takes the replica out of its balancer."""

    async def handle(exchange: Exchange) -> Answer:
        if await ready():
            return Answer(200, API_HEADERS, encoded({"status": "ready"}))
        return Answer(503, API_HEADERS, encoded({"status": "unready"}))

    return handle
