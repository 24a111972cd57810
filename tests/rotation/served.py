"""`artstore-grpc serve` with a sink of the tests' own: `python served.py FOLDER`.

The sink is a folder: a file of each account's secret, and in `asked` a line for each delivery that it was asked for.
While there is a file `before` or `after` it hangs, before or after it has taken a secret.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from artstore_grpc import app
from artstore_grpc.cli import environment
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.sinks.protocol import Delivery

HANG_SECONDS = 3600


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path

    async def deliver(self, delivery: Delivery) -> None:
        with (self.path / "asked").open("a") as log:
            log.write(f"{os.getpid()} {delivery.secret_id}\n")
        await self._hang("before")
        part = self.path / f".{delivery.client_id}.{os.getpid()}"
        part.write_text(delivery.client_secret)
        part.replace(self.path / delivery.client_id)
        await self._hang("after")

    async def _hang(self, when: str) -> None:
        if (self.path / when).exists():
            (self.path / f"{when}.{os.getpid()}").touch()
            await asyncio.sleep(HANG_SECONDS)

    def check(self, destination: str) -> None:
        """Takes any."""

    async def close(self) -> None:
        """Holds nothing open."""


if __name__ == "__main__":
    asyncio.run(app.serve(environment.settings(), sinks=Sinks({"folder": Folder(Path(sys.argv[1]))})))
