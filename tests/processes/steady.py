"""A steady load of IssueToken, whatever becomes of the calls: an open loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import grpc
from artstore.identity import Client, IdentityError, RetryPolicy
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1.token_service_pb2_grpc import TokenServiceStub

from tests.processes import service

CALL = timedelta(seconds=30)
"""Longer than the SDK's default, for a machine that is busy with other tests: slowness is not what is counted."""
NEVER_AGAIN = RetryPolicy(max_attempts=1)

Call = Callable[[], Awaitable[object]]


@dataclass
class Callers:
    """Some callers of one kind, and what came of their calls."""

    open: Callable[[AsyncExitStack], Awaitable[Call]]
    connections: int
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    @property
    def failed(self) -> int:
        return self.outcomes.total() - self.outcomes["OK"]

    def __str__(self) -> str:
        failures = ", ".join(f"{count} {name}" for name, count in self.outcomes.items() if name != "OK")
        return f"{self.failed} of {self.outcomes.total()} failed ({failures or 'none'}), slowest {self.slowest:.2f} s"


def unlimited(client: service.Client) -> dict[str, str]:
    """An account that no limit is in the way of, as credentials."""
    account = accounts_pb.ServiceAccount(name="steady", role=accounts_pb.ROLE_USER, rate_limit=1_000_000)
    request = accounts_pb.CreateServiceAccountRequest(service_account=account)
    made = client.accounts.CreateServiceAccount(request, metadata=client.bearer, timeout=service.CALL_SECONDS)
    return {"client_id": made.service_account.client_id, "client_secret": made.client_secret}


def sdk(connections: int, retry: RetryPolicy | None = None, **where: Any) -> Callers:
    """Callers by the SDK's client; `where` and who as `Client` has it. Each has a connection of its own."""

    async def opened(stack: AsyncExitStack) -> Call:
        client = Client(**where, timeout=CALL, retry=retry)
        return (await stack.enter_async_context(client if "discovery" in where else client.again())).issue_token

    return Callers(opened, connections)


def bare(connections: int, target: str, client_id: str, client_secret: str) -> Callers:
    """Callers by gRPC alone, without even its transparent retries."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
    request = tokens_pb.IssueTokenRequest(
        grant_type="client_credentials", client_id=client_id, client_secret=client_secret
    )

    async def opened(stack: AsyncExitStack) -> Call:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target, options))
        stub = TokenServiceStub(channel)
        return lambda: stub.IssueToken(request, timeout=CALL.total_seconds())

    return Callers(opened, connections)


class SteadyLoad:
    """`with SteadyLoad(rate, callers…)`: so many calls a second over all callers' connections, in turn and so many at
    once (`burst`), until the end; then it waits for the last answers. What it was too late for, on a machine that is
    busy with other tests, it leaves out: all of it at once would be an overload, which is not what is counted."""

    def __init__(self, rate: float, *callers: Callers, burst: int = 1) -> None:
        self._interval, self._burst = burst / rate, burst
        self._callers = callers
        self._ended = threading.Event()
        self._flowing = threading.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._flow()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._flowing.wait(60), "no call was answered"
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _flow(self) -> None:
        async with AsyncExitStack() as stack:
            lines = [(each, await each.open(stack)) for each in self._callers for _ in range(each.connections)]
            await asyncio.gather(*(call() for _, call in lines))  # each is connected, and the account in memory
            self._flowing.set()
            due, sent = time.perf_counter(), 0
            while not self._ended.is_set():
                if (now := time.perf_counter()) >= due:
                    for line in range(sent, sent + self._burst):
                        task = asyncio.create_task(self._call(*lines[line % len(lines)]))
                        self._calls.add(task)
                        task.add_done_callback(self._calls.discard)
                    sent += self._burst
                    due = max(due, now - self._interval) + self._interval
                await asyncio.sleep(self._interval / 4)
            await asyncio.gather(*self._calls)

    @staticmethod
    async def _call(callers: Callers, call: Call) -> None:
        began = time.perf_counter()
        try:
            await call()
        except IdentityError as error:
            callers.outcomes[error.code.name] += 1
        except grpc.aio.AioRpcError as error:
            callers.outcomes[error.code().name] += 1
        except Exception as error:  # a defect of the client is a call that failed, not one that wasn't made
            callers.outcomes[type(error).__name__] += 1
        else:
            callers.outcomes["OK"] += 1
        callers.slowest = max(callers.slowest, time.perf_counter() - began)
