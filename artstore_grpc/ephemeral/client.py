"""Connections to a Redis. Their calls are bounded by whoever makes them, and their ends here: TLS has a last word with
the other side, and one that went silent would be waited for half a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

CONNECTIONS = 32
"""Calls at a time, each on a connection of its own; the others wait, within their timeout. More bring no more."""

LAST_WORD = timedelta(milliseconds=500)
"""For a connection's orderly end, when this process ends or goes on without it. It is gone here at once in any case."""
DEAD_WORD = timedelta(milliseconds=20)
"""For the end of a connection that failed, or whose like did: somebody waits for the next one."""


def client_of(url: str) -> Redis:
    """A client of this package's, for `redis:`, `rediss:` and `unix:`."""
    # No retries: a second attempt takes as long as the first, and there is a fallback. No timeouts but ours: with its
    # own, redis-py calls asyncio.wait_for, which before Python 3.12 can swallow the cancellation that ours is made of.
    return Redis.from_url(
        url,
        protocol=3,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=None,
        socket_connect_timeout=None,
        max_connections=2 * CONNECTIONS,
    )


async def close(client: Redis | RedisCluster) -> None:
    """Closes all its connections. Takes at most LAST_WORD, and never raises."""
    await ended(client.aclose(), LAST_WORD)


async def drop_idle(client: Redis | RedisCluster) -> None:
    """Drops what was idle when Redis failed: it is as dead as what noticed, and would fail a call each. Takes at most
    DEAD_WORD, and never raises. A cluster's client does so by itself."""
    if isinstance(client, Redis):
        await ended(client.connection_pool.disconnect(inuse_connections=False), DEAD_WORD)


async def ended(end: Awaitable[Any], within: timedelta) -> None:
    """Waits for an end, for so long; what fails or is late has ended too."""
    with suppress(RedisError, OSError):  # the TimeoutError of asyncio is an OSError
        async with asyncio.timeout(within.total_seconds()):
            await end
