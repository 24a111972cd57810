"""Callers of a drill, as a process of their own: `python -m tests.processes.attack rightful|attackers`.

Standard input is one JSON object: `address`, `seconds`, `beginning` (how many of them are told apart), `rate` (calls a
second, steady: nobody waits for an answer), `accounts` (pairs of client_id and secret), `sources` (addresses). Standard
output is what came of it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import grpc
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1 import token_service_pb2_grpc

from artstore_grpc import secrets

CONNECTIONS = 8
TICK_SECONDS = 0.01
LATE_SECONDS = 0.05
"""A caller that was held up itself leaves out what it should have begun earlier: made up for at once it would be a
burst that nobody asked for."""
PATIENCE_SECONDS = 30.0
MAX_OUTSTANDING = 3000
"""Calls that may wait for their answers; past it the caller is what is too slow, and says so."""


class Callers:
    """Calls at a steady rate, over a few connections."""

    def __init__(self, task: dict[str, Any], *, wrong: bool) -> None:
        self.task = task
        self.wrong = wrong
        self.calls: list[tuple[float, float]] = []
        """When each call began, and how long it took."""
        self.codes: Counter[str] = Counter()
        self.left_out = 0
        self.outstanding = 0

    async def run(self) -> dict[str, Any]:
        async with AsyncExitStack() as stack:
            stubs = []
            for _ in range(CONNECTIONS):
                pool = [("grpc.use_local_subchannel_pool", 1)]
                channel = await stack.enter_async_context(grpc.aio.insecure_channel(self.task["address"], pool))
                await channel.channel_ready()
                stubs.append(token_service_pb2_grpc.TokenServiceStub(channel))
            started, begun = time.monotonic(), 0
            async with asyncio.TaskGroup() as group:
                while (passed := time.monotonic() - started) < self.task["seconds"]:
                    late = int((passed - LATE_SECONDS) * self.task["rate"]) - begun
                    if late > 0:
                        begun += late
                        self.left_out += late
                    while begun < passed * self.task["rate"]:
                        begun += 1
                        if self.outstanding >= MAX_OUTSTANDING:
                            self.left_out += 1
                            continue
                        self.outstanding += 1
                        group.create_task(self.call(stubs[begun % CONNECTIONS]))
                    await asyncio.sleep(TICK_SECONDS)
                lasted = time.monotonic() - started
        beginning = sorted(took for at, took in self.calls if at < started + self.task["beginning"])
        going_on = sorted(took for at, took in self.calls if at >= started + self.task["beginning"])
        return {
            "codes": self.codes,
            "left_out": self.left_out,
            "rate": sum(self.codes.values()) / lasted,
            "p50": quantile(going_on, 50),
            "p99": quantile(going_on, 99),
            "p99 as it begins": quantile(beginning, 99),
        }

    async def call(self, stub: Any) -> None:
        client_id, secret = random.choice(self.task["accounts"])
        if self.wrong:
            secret = guess(secret)
        request = tokens_pb.IssueTokenRequest(
            grant_type="client_credentials", client_id=client_id, client_secret=secret
        )
        metadata = (("x-forwarded-for", random.choice(self.task["sources"])),)
        started = time.monotonic()
        try:
            await stub.IssueToken(request, metadata=metadata, timeout=PATIENCE_SECONDS)
            self.codes["OK"] += 1
        except grpc.RpcError as error:
            refused: Any = error
            self.codes[refused.code().name] += 1
        finally:
            self.outstanding -= 1
        self.calls.append((started, time.monotonic() - started))


def quantile(times: list[float], hundredths: int) -> float:
    return times[len(times) * hundredths // 100] if times else 0.0


def guess(secret: str) -> str:
    """A well-formed secret: half of the time with the right one's id, which is not secret."""
    made = secrets.generate().text
    if random.random() < 0.5:
        return made
    at = len(secrets.PREFIX) + secrets.ID_LENGTH
    body = secret[:at] + made[at : -secrets.CHECKSUM_LENGTH]
    return body + secrets.checksum(body)


if __name__ == "__main__":
    gc.disable()  # its pauses of 100 ms would be measured as the service's, and followed by bursts
    who = sys.argv[1]
    if who == "attackers":
        os.nice(10)  # on a machine without a core to spare they would measure themselves in the others' times
    print(json.dumps(asyncio.run(Callers(json.load(sys.stdin), wrong=who == "attackers").run())))
