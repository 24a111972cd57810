"""Servers between a client and a server, on the loopback: they hand on the bytes of each connection, and know nothing
of what is said."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from typing import Self

CHUNK_BYTES = 65_536
START_SECONDS = 30.0

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """`with` one of its kinds: connect to `address`. A thread with a loop of its own; a kind of relay says where each
    new connection goes. Every chunk towards the server is held back for `delay_seconds`, which may be changed at any
    time. `tls`: what its clients' connections end TLS with, if they have any."""

    tls: ssl.SSLContext | None = None

    def __init__(self) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._bound.wait(START_SECONDS), "the relay did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)

    async def connect(self) -> Ends:
        """A connection to the server, for a client that has come. Raises OSError where there is none to be had."""
        raise NotImplementedError

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        self._bound.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        writers = [writer]
        try:
            from_server, to_server = await self.connect()
            writers.append(to_server)
            await asyncio.gather(self._pump(reader, to_server, slowly=True), self._pump(from_server, writer))
        except OSError:
            pass  # nobody is there
        except asyncio.CancelledError:  # the relay ends, and with it what it carried
            for each in writers:
                each.transport.abort()
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*map(closed, writers))
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool = False) -> None:
        """Hands on what comes until it ends, and then that it has ended."""
        with contextlib.suppress(OSError):  # an end that went away is what is handed on next
            while data := await reader.read(CHUNK_BYTES):
                if slowly and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                writer.write(data)
                await writer.drain()
        writer.close()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
