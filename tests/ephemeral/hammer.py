"""A process of its own that charges one key without a pause: python hammer.py URL PREFIX LIMIT SECONDS.

Prints how many were admitted.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta

from artstore_grpc.ephemeral.memory import MemoryLimiter
from artstore_grpc.ephemeral.redis import RedisLimiter


async def hammer(url: str, prefix: str, limit: int, seconds: float) -> int:
    patient = timedelta(seconds=10)  # a busy machine isn't a dead Redis
    limiter = RedisLimiter(url, fallback=MemoryLimiter(), prefix=prefix, timeout=patient)
    admitted = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        waits = await asyncio.gather(*(limiter.charge("a", limit) for _ in range(16)))
        admitted += waits.count(None)
    assert limiter.available
    await limiter.close()
    return admitted


if __name__ == "__main__":
    print(asyncio.run(hammer(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
