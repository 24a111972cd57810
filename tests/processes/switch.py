"""A TCP balancer as simple as can be: every new connection goes to the address that is named by then."""

from __future__ import annotations

import asyncio
import threading
from typing import Self

START_SECONDS = 30.0


class Switch:
    """`with Switch(address) as switch`: connect to `switch.address`; `switch.target` may be changed at any time."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._bound.wait(START_SECONDS), "the switch did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._bound.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        from_server, to_server = await asyncio.open_connection(host, int(port))
        for source, sink in ((reader, to_server), (from_server, writer)):
            task = asyncio.create_task(passed_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # an end that went away is what is passed on next
    finally:
        writer.close()
