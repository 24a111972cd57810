"""What a Redis is like: facts for a checkup, without a change to anything."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from artstore_grpc.ephemeral.client import client_of, close

TIMEOUT = timedelta(seconds=5)


class Unreachable(Exception):
    """Redis can't be asked; the message is the kind of failure, and repeats nothing of the URL."""


@dataclass(frozen=True, slots=True)
class RedisCondition:
    """`time` is the server's, between `asked` and `answered`; `policy` is its `maxmemory-policy`, None where that may
    not be asked; `password`: the URL has one."""

    asked: datetime
    time: datetime
    answered: datetime
    policy: str | None
    near: bool
    encrypted: bool
    password: bool


async def condition(url: str) -> RedisCondition:
    """Raises Unreachable."""
    client = client_of(url)
    try:
        async with asyncio.timeout(TIMEOUT.total_seconds()):
            await client.ping()
            asked = datetime.now(UTC)
            seconds, microseconds = await client.time()
            answered = datetime.now(UTC)
            policy = await policy_of(client)
    except (RedisError, OSError, TimeoutError) as error:
        raise Unreachable(type(error).__name__) from None
    finally:
        await close(client)
    parts = urlsplit(url)
    return RedisCondition(
        asked=asked,
        time=datetime.fromtimestamp(seconds + microseconds / 1e6, UTC),
        answered=answered,
        policy=policy,
        near=parts.scheme == "unix" or parts.hostname in ("localhost", "127.0.0.1", "::1"),
        encrypted=parts.scheme == "rediss",
        password=bool(parts.password) or "password=" in parts.query,
    )


async def policy_of(client: Redis) -> str | None:
    """None where an ACL, or a provider, doesn't let CONFIG be asked."""
    try:
        return (await client.config_get("maxmemory-policy")).get("maxmemory-policy")
    except ResponseError:
        return None
