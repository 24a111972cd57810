"""A TCP proxy before a server on a UNIX socket, that can be told to delay what it passes on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Self

CHUNK_BYTES = 65_536
START_SECONDS = 30.0


class Proxy:
    """`with Proxy(socket) as proxy`: connect to 127.0.0.1 at `proxy.port`. Every chunk to the server is held back for
    `delay_seconds`, which may be changed at any time."""

    def __init__(self, target: Path) -> None:
        self.delay_seconds = 0.0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._target = target
        self._bound = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._bound.wait(START_SECONDS), "the proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._bound.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await asyncio.gather(self._pass(reader, to_server, slowly=True), self._pass(from_server, writer))
        except asyncio.CancelledError:
            pass  # the proxy ends, and with it what it carried
        finally:
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool = False) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                if slowly and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # an end that went away is what is passed on next
        finally:
            writer.close()
