"""A crowd of callers in a closed loop, as a process of its own: `python -m tests.processes.crowd`.

Each calls as soon as it was answered; one that is refused waits as long as it was told. Standard input is one JSON
object: `address`, `seconds`, `callers`, `patience` (the deadline of each call, in seconds), `accounts` (pairs of
client_id and secret). Standard output is what came of it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import grpc
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1 import token_service_pb2_grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from tests.processes.attack import quantile

CALLERS_OF_A_CONNECTION = 100
TOLD_NOTHING_SECONDS = 1.0


class Crowd:
    """So many callers over a few connections."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.codes: Counter[str] = Counter()
        self.served: list[tuple[float, float]] = []
        """When each call that was served ended, since the beginning, and how long it took."""
        self.refused: list[float] = []
        """How long each refusal took."""
        self.started = 0.0

    async def run(self) -> dict[str, Any]:
        callers = self.task["callers"]
        async with AsyncExitStack() as stack:
            stubs = []
            for _ in range(-(-callers // CALLERS_OF_A_CONNECTION)):
                own = [("grpc.use_local_subchannel_pool", 1)]
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(self.task["address"], own))
                await channel.channel_ready()
                stubs.append(token_service_pb2_grpc.TokenServiceStub(channel))
            self.started = time.perf_counter()
            await asyncio.gather(*(self.caller(stubs[number % len(stubs)]) for number in range(callers)))
            lasted = time.perf_counter() - self.started
        times = sorted(took for _, took in self.served)
        last = sorted(took for ended, took in self.served if ended > self.task["seconds"] - 1)
        return {
            "codes": self.codes,
            "goodput": len(times) / lasted,
            "p50": quantile(times, 50),
            "p99": quantile(times, 99),
            "p50 of the last second": quantile(last, 50),
            "refused p99": quantile(sorted(self.refused), 99),
        }

    async def caller(self, stub: Any) -> None:
        while (begun := time.perf_counter()) < self.started + self.task["seconds"]:
            client_id, secret = random.choice(self.task["accounts"])
            request = tokens_pb.IssueTokenRequest(
                grant_type="client_credentials", client_id=client_id, client_secret=secret
            )
            try:
                await stub.IssueToken(request, timeout=self.task["patience"])
            except grpc.RpcError as error:
                refusal: Any = error
                self.codes[refusal.code().name] += 1
                self.refused.append(time.perf_counter() - begun)
                await asyncio.sleep(told(refusal))
            else:
                ended = time.perf_counter()
                self.codes["OK"] += 1
                self.served.append((ended - self.started, ended - begun))


def told(refusal: Any) -> float:
    """How long to wait, as RetryInfo says, with some jitter: a crowd that comes back at once is none the wiser."""
    seconds = TOLD_NOTHING_SECONDS
    for detail in Status.FromString(dict(refusal.trailing_metadata()).get("grpc-status-details-bin", b"")).details:
        info = RetryInfo()
        if detail.Unpack(info):
            seconds = info.retry_delay.ToTimedelta().total_seconds()
    return seconds * random.uniform(1.0, 2.0)


if __name__ == "__main__":
    gc.disable()  # its pauses of 100 ms would be measured as the service's, and followed by bursts
    print(json.dumps(asyncio.run(Crowd(json.load(sys.stdin)).run())))
