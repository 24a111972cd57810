"""HTTP/2 written by hand (RFC 9113), for what no gRPC library would send."""

from __future__ import annotations

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""RFC 9113 §3.4."""
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4
"""Frame types (§6)."""
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
INITIAL_WINDOW_SIZE = 4
"""A setting (§6.5.2)."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame (§4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: str, value: str) -> bytes:
    """A header field without indexing and without Huffman (RFC 7541 §6.2.2); at most 126 bytes each."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def request(path: str, **more: str) -> bytes:
    """The header block of a gRPC call."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "te": "trailers"}
    fields |= {"content-type": "application/grpc", **more}
    return b"".join(literal(name, value) for name, value in fields.items())


def message(data: bytes) -> bytes:
    """A length-prefixed gRPC message."""
    return b"\0" + struct.pack(">I", len(data)) + data


def connected(port: int, *, window: int = 65_535) -> socket.socket:
    """A connection on which each stream may receive `window` bytes."""
    made = socket.create_connection(("127.0.0.1", port), timeout=30)
    setting = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
    made.sendall(PREFACE + frame(SETTINGS, 0, 0, setting) + frame(SETTINGS, ACK, 0))
    return made
