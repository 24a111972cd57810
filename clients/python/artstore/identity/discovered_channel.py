"""Channels to replicas that come and go: whenever a discovery names others, new calls take a new channel.

A call stays on the channel that it began on, which is closed after the last of its calls; gRPC shares connections
between the channels of a process, so that those to replicas that stay are not made anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import grpc
from artstore.identity.discovery import Discovery, target_of

LOGGER = logging.getLogger("artstore.identity")

NOBODY = "No replica is known yet: the discovery has not answered, or knows none that is ready."

Channel = TypeVar("Channel", grpc.aio.Channel, grpc.Channel)


@dataclass(eq=False)
class Generation(Generic[Channel]):
    """A channel to one set of replicas, and how many calls are on it."""

    target: str
    channel: Channel
    calls: int = 0
    stubs: dict[Any, Any] = field(default_factory=dict)


class DiscoveredChannel(grpc.aio.Channel):
    """A channel for asyncio, of one event loop."""

    def __init__(self, discovery: Discovery, open: Callable[[str], grpc.aio.Channel]) -> None:
        """`open` makes a channel of a target. Nothing is asked before `follow`."""
        self._discovery = discovery
        self._open = open
        self._current: Generation[grpc.aio.Channel] | None = None
        self._looked = asyncio.Event()
        self._retired: set[Generation[grpc.aio.Channel]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None

    def follow(self) -> None:
        """Begins to ask the discovery, until it is closed."""
        self._following = asyncio.get_running_loop().create_task(self._follow())

    async def known(self) -> None:
        """Returns once the discovery has been asked, whatever it said."""
        await self._looked.wait()

    async def _follow(self) -> None:
        while True:
            try:
                target = await asyncio.to_thread(lambda: target_of(self._discovery.current()))
                if target and (self._current is None or target != self._current.target):
                    self._switch(target)
            except Exception:  # a defect of a user's own discovery: what was known goes on
                LOGGER.exception("the discovery failed")
            self._looked.set()
            await asyncio.sleep(self._discovery.refresh.total_seconds())

    def _switch(self, target: str) -> None:
        left, self._current = self._current, Generation(target, self._open(target))
        if left is not None:
            self._retired.add(left)
            self._close_if_idle(left)

    def _close_if_idle(self, generation: Generation[grpc.aio.Channel]) -> None:
        if generation.calls == 0 and generation in self._retired:
            self._retired.discard(generation)
            closing = asyncio.get_running_loop().create_task(generation.channel.close())
            self._tasks.add(closing)
            closing.add_done_callback(self._tasks.discard)

    def begin(self, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Callable[..., Any]:
        """A method of the present channel, whose call is counted until it has ended. Raises AioRpcError."""
        generation = self._current
        if generation is None:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, NOBODY)
        method = getattr(generation.channel, kind)(*arguments, **options)

        def call(*given: Any, **named: Any) -> Any:
            begun = method(*given, **named)
            generation.calls += 1
            begun.add_done_callback(lambda _: self._ended(generation))
            return begun

        return call

    def _ended(self, generation: Generation[grpc.aio.Channel]) -> None:
        generation.calls -= 1
        self._close_if_idle(generation)

    def unary_unary(self, *arguments: Any, **options: Any) -> Any:
        return Method(self, "unary_unary", arguments, options)

    def unary_stream(self, *arguments: Any, **options: Any) -> Any:
        return Method(self, "unary_stream", arguments, options)

    def stream_unary(self, *arguments: Any, **options: Any) -> Any:
        return Method(self, "stream_unary", arguments, options)

    def stream_stream(self, *arguments: Any, **options: Any) -> Any:
        return Method(self, "stream_stream", arguments, options)

    async def close(self, grace: float | None = None) -> None:
        """Closes every channel; calls in flight are cancelled, after `grace` seconds where that is given."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        open_ones = [*self._retired, *filter(None, [self._current])]
        self._retired.clear()
        self._current = None
        await asyncio.gather(*(each.channel.close(grace) for each in open_ones), *self._tasks)

    async def __aenter__(self) -> DiscoveredChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if self._current is None:
            return grpc.ChannelConnectivity.IDLE
        return self._current.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self.known()
        if self._current is not None:
            await self._current.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        while self._current is None:
            await self.known()
            await asyncio.sleep(self._discovery.refresh.total_seconds() if self._current is None else 0)
        await self._current.channel.channel_ready()


class Method:
    """What a stub calls."""

    def __init__(
        self, channel: DiscoveredChannel, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self._channel = channel
        self._what = (kind, arguments, options)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self._channel.begin(*self._what)(*given, **named)


class NobodyKnown(grpc.RpcError):
    """What a call comes to where no replica is known; as gRPC's own errors, in threads."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return NOBODY

    def trailing_metadata(self) -> Any:
        return ()


class SyncDiscovered:
    """The same for threads, and less: stubs for one call at a time. The discovery is asked by the thread that calls,
    which is about to wait for a network anyway."""

    def __init__(
        self, discovery: Discovery, open: Callable[[str], grpc.Channel], stubs: Callable[[grpc.Channel], dict[Any, Any]]
    ) -> None:
        """`open` makes a channel of a target, and `stubs` what is called through it."""
        self._discovery = discovery
        self._open = open
        self._stubs = stubs
        self._lock = threading.Lock()
        self._closed = False
        self._current: Generation[grpc.Channel] | None = None
        self._retired: set[Generation[grpc.Channel]] = set()

    @contextlib.contextmanager
    def using(self) -> Iterator[dict[Any, Any]]:
        """Stubs of the replicas that there are now, for a call within. Raises NobodyKnown; ValueError once closed."""
        target = target_of(self._discovery.current())
        with self._lock:
            if self._closed:
                raise ValueError("Channel closed!")  # in gRPC's words
            if target and (self._current is None or target != self._current.target):
                self._switch(target)
            generation = self._current
            if generation is None:
                raise NobodyKnown
            generation.calls += 1
        try:
            yield generation.stubs
        finally:
            with self._lock:
                generation.calls -= 1
                self._close_if_idle(generation)

    def close(self) -> None:
        """Closes every channel; calls in flight are cancelled."""
        with self._lock:
            self._closed = True
            for generation in (*self._retired, *filter(None, [self._current])):
                generation.channel.close()
            self._retired.clear()
            self._current = None

    def _switch(self, target: str) -> None:
        channel = self._open(target)
        left, self._current = self._current, Generation(target, channel, stubs=self._stubs(channel))
        if left is not None:
            self._retired.add(left)
            self._close_if_idle(left)

    def _close_if_idle(self, generation: Generation[grpc.Channel]) -> None:
        if generation.calls == 0 and generation in self._retired:
            self._retired.discard(generation)
            generation.channel.close()
