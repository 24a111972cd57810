"""A plain TCP balancer, as kube-proxy is one: it hands on connections and knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Self

CHUNK_BYTES = 65_536
START_SECONDS = 30.0


class Balancer:
    """`with Balancer(ports) as balancer`: connect to 127.0.0.1 at `balancer.port`. Each new connection goes to the next
    port in turn; one that refuses it is passed over. There is no health check."""

    def __init__(self, ports: list[int]) -> None:
        self.port = 0
        self.accepted = 0
        self.passed_over = 0
        self._ports = ports
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._bound.wait(START_SECONDS), "the balancer did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._bound.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            there = await self._connected()
            if there is not None:
                writers.append(there[1])
                await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))
        except asyncio.CancelledError:
            pass  # the balancer ends, and with it what it carried
        finally:
            await asyncio.gather(*map(closed, writers))
            self._tasks.discard(task)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to the next port that takes one; None where none does."""
        for _ in self._ports:
            self._turn += 1
            try:
                return await asyncio.open_connection("127.0.0.1", self._ports[self._turn % len(self._ports)])
            except OSError:
                self.passed_over += 1
        return None


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hands on what comes until it ends, and then that it has ended."""
    with contextlib.suppress(OSError):  # an end that went away is what is handed on next
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def free_ports(count: int) -> list[int]:
    """Ports that are free now, to be taken by processes that come back to the same one."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in made]
