"""What a supervisor and a worker tell each other: JSON, a message a line, over a pair of sockets.

Either notices the other's end by the end of its messages, however that came. No secret goes over it: a worker reads its
settings as its supervisor did, from the environment.
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import asdict, dataclass
from typing import Any

from artstore_grpc.settings import Address

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Metrics of a worker come to some 100 KB."""

ADDRESSES = ("grpc_address", "grpc_mtls_address", "gateway_address", "health_address")
"""The settings of the listeners that workers share."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The first message to a worker: which one it is, of how many, whether it is the only one yet, whether it says how
    to get a token, and where it listens (each address by its setting's name)."""

    number: int
    workers: int
    alone: bool
    greets: bool
    insecure_public: bool
    addresses: dict[str, Address]

    def message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, message: dict[str, Any]) -> Assignment:
        addresses = {name: Address(**each) for name, each in message.pop("addresses").items()}
        return cls(**message, addresses=addresses)


class Channel:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        """Takes a socket over."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_MESSAGE_BYTES))

    def tell(self, **message: Any) -> None:
        """Sends a message, which is lost if the other has ended."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next message; None once the other has ended."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None  # it ended in the middle of a word
        message: dict[str, Any] = json.loads(line)
        return message

    async def close(self) -> None:
        """Sends what was told, and ends."""
        try:
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except ConnectionError:
            return
