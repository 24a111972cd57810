"""A DNS server for the tests: one name, whose addresses a test changes; by UDP on the loopback (RFC 1035 §4)."""

from __future__ import annotations

import socket
import struct
import threading
from typing import Self

HEADER = struct.Struct("!HHHHHH")
ANSWERS, QUERY_MASK = 0x8400, 0x0100
"""The flags of an authoritative answer; of a query, that recursion is desired."""
A, IN = 1, 1
POINTER_TO_THE_QUESTION = 0xC00C
TTL_SECONDS = 0
POLL_SECONDS = 0.05


class NameServer:
    """`with NameServer("10.0.0.1", …) as dns:` every name has those IPv4 addresses, and no other record."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(POLL_SECONDS)
        self.port = int(self._socket.getsockname()[1])
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def target(self, port: int) -> str:
        """A gRPC target that asks this server for a name, and calls that port of its addresses."""
        return f"dns://127.0.0.1:{self.port}/identity.test:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                query, sender = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            self._socket.sendto(self._answered(query), sender)

    def _answered(self, query: bytes) -> bytes:
        identifier, flags, *_ = HEADER.unpack_from(query)
        end = query.index(b"\0", HEADER.size) + 5  # of the name; then its type and class
        kind = struct.unpack_from("!H", query, end - 4)[0]
        found = [socket.inet_aton(address) for address in self.addresses] if kind == A else []
        self.asked += kind == A
        header = HEADER.pack(identifier, ANSWERS | (flags & QUERY_MASK), 1, len(found), 0, 0)
        record = struct.pack("!HHHIH", POINTER_TO_THE_QUESTION, A, IN, TTL_SECONDS, 4)
        return header + query[HEADER.size : end] + b"".join(record + address for address in found)
