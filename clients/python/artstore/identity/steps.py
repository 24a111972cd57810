"""Work that is described and not done: a generator yields its steps and is sent what came of each.

One description serves asyncio and threads, so that no rule is written twice; a test can carry it out step by step,
and stop after any of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import grpc
from artstore.identity.errors import from_rpc_error
from artstore.identity.v1.service_account_service_pb2_grpc import ServiceAccountServiceStub
from artstore.identity.v1.token_service_pb2_grpc import TokenServiceStub

T = TypeVar("T")
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A unary call; it comes to the answer, or raises IdentityError. `repr` shows nothing that is sent."""

    stub: Callable[[Any], Any]
    method: str
    request: Any = field(repr=False)
    metadata: Metadata = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Work:
    """A function that may block on a disk or a network."""

    function: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait; the work is over when its owner is closed meanwhile."""

    seconds: float


class Closed(Exception):
    """The owner of the work was closed."""


Step = Call | Work | Pause
Steps = Generator[Step, Any, T]


STUBS: tuple[Callable[[Any], Any], ...] = (TokenServiceStub, ServiceAccountServiceStub)
"""Made with the channel and never later: gRPC ends the process where one is made on a channel that another thread has
closed meanwhile."""


Stubs = dict[Callable[[Any], Any], Any]


def stubs(channel: Any) -> Stubs:
    return {stub: stub(channel) for stub in STUBS}


def _next(steps: Steps[T], answer: Any, failure: Exception | None) -> Step:
    return steps.send(answer) if failure is None else steps.throw(failure)


class AsyncCarrier:
    """Carries steps out on an event loop; what blocks, in its threads."""

    def __init__(self, channel: grpc.aio.Channel, timeout_seconds: float) -> None:
        self._stubs = stubs(channel)
        self._timeout_seconds = timeout_seconds

    async def carry_out(self, steps: Steps[T]) -> T:
        answer, failure = None, None
        try:
            while True:
                step = _next(steps, answer, failure)
                answer, failure = None, None
                try:
                    answer = await self._carried_out(step)
                except Exception as error:  # whatever it is, the work's own `except` clauses decide
                    failure = error
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what the generator returns, by Steps[T]
        finally:
            steps.close()

    async def _carried_out(self, step: Step) -> Any:
        match step:
            case Call():
                method = getattr(self._stubs[step.stub], step.method)
                try:
                    return await method(step.request, timeout=self._timeout_seconds, metadata=step.metadata)
                except grpc.aio.AioRpcError as error:
                    raise from_rpc_error(error) from None
            case Work():
                return await asyncio.to_thread(step.function)
            case Pause():
                await asyncio.sleep(step.seconds)
                return None


class Channels(Protocol):
    """What a call in a thread goes through."""

    def using(self) -> AbstractContextManager[Stubs]:
        """Stubs for one call, made within. Raises RpcError; ValueError once closed."""
        ...


class FixedChannel:
    """Channels that are one and stay it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._stubs = stubs(channel)

    def using(self) -> AbstractContextManager[Stubs]:
        return nullcontext(self._stubs)

    def close(self) -> None:
        self._channel.close()


class SyncCarrier:
    """Carries steps out in the thread that asks; needs no event loop."""

    def __init__(self, channels: Channels, timeout_seconds: float, closed: threading.Event) -> None:
        self._channels = channels
        self._timeout_seconds = timeout_seconds
        self._closed = closed

    def carry_out(self, steps: Steps[T]) -> T:
        answer, failure = None, None
        try:
            while True:
                step = _next(steps, answer, failure)
                answer, failure = None, None
                try:
                    answer = self._carried_out(step)
                except Exception as error:  # as above
                    failure = error
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what the generator returns, by Steps[T]
        finally:
            steps.close()

    def _carried_out(self, step: Step) -> Any:
        if self._closed.is_set():
            raise Closed("The token source was closed.")
        match step:
            case Call():
                try:
                    with self._channels.using() as made:
                        method = getattr(made[step.stub], step.method)
                        return method(step.request, timeout=self._timeout_seconds, metadata=step.metadata)
                except grpc.RpcError as error:
                    raise from_rpc_error(error) from None
                except ValueError:  # what gRPC says of a channel that was closed just now
                    raise Closed("The token source was closed.") from None
            case Work():
                return step.function()
            case Pause():
                if self._closed.wait(step.seconds):
                    raise Closed("The token source was closed.")
                return None
