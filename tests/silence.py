"""A Redis behind TLS whose answers can be withheld: the connections stay, and nothing comes over them any more, as when
a machine or a path to it is lost."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes.switch import Switch
from tests.relay import Ends, Relay
from tests.servers import Redis
from tests.transport.machines import Files

FOREVER_SECONDS = 600.0


class Terminator(Relay):
    """Ends TLS before a server that has none."""

    def __init__(self, files: Files, socket: Path) -> None:
        super().__init__()
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.load_cert_chain(files.certificate, files.key)
        self._socket = socket

    async def connect(self) -> Ends:
        return await asyncio.open_unix_connection(self._socket)


@dataclass
class Silenced:
    """A Redis by TLS."""

    url: str
    _wire: Switch

    @property
    def port(self) -> int:
        return self._wire.port

    def fall_silent(self) -> None:
        """From now on nothing that is sent to it arrives."""
        self._wire.delay_seconds = FOREVER_SECONDS


@contextmanager
def silenced(folder: Path) -> Iterator[Silenced]:
    files = Files(folder)
    with Redis() as server, Terminator(files, server.socket) as terminator, Switch(terminator.address) as wire:
        yield Silenced(f"rediss://{wire.address}/0?ssl_ca_certs={files.ca_file}", wire)
