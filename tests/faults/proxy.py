"""What stands before a server on a UNIX socket, and can be told to delay what it passes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.relay import Ends, Relay


class Proxy(Relay):
    """`with Proxy(socket) as proxy`: connect to 127.0.0.1 at `proxy.port`."""

    def __init__(self, target: Path) -> None:
        super().__init__()
        self._target = target

    async def connect(self) -> Ends:
        return await asyncio.open_unix_connection(str(self._target))
