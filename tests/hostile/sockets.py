"""Bytes straight into a port, and what a server says to them."""

from __future__ import annotations

import json
import re
import socket
from contextlib import suppress

from tests.hostile.victim import REASON, Victim

SECONDS = 8.0
SILENCE_SECONDS = 0.1
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
BODY = b"grant_type=client_credentials"


def said(port: int, data: bytes, *, ends: bool = False) -> bytes:
    """What a server answers to bytes, until it closes or falls silent. With `ends` nothing more will come from us, and
    a server that keeps silent and open all the same is a TimeoutError."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as made, suppress(ConnectionError):
        made.sendall(data)
        if ends:
            made.shutdown(socket.SHUT_WR)
        while part := received(made, answer):
            answer += part
    return answer


def received(made: socket.socket, answer: bytes) -> bytes:
    """What comes next; nothing, once a server that has answered is silent."""
    made.settimeout(SILENCE_SECONDS if answer and whole(answer) else SECONDS)
    try:
        return made.recv(65_536)
    except TimeoutError:
        if answer:
            return b""
        raise


def whole(answer: bytes) -> bool:
    """Whether nothing is missing of what has begun; of HTTP an interim response (RFC 9110 §15.2) is not yet it."""
    head, ended, body = answer.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return not answer.startswith(b"HTTP/") or (bool(ended) and len(body) >= (int(length[1]) if length else 0))


def answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The HTTP responses in what a server said: status, headers, body."""
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        found.append((int(line.split(" ")[1]), headers, rest[:length]))
        data = rest[length:]
    return found


def assert_ours(response: tuple[int, dict[str, str], bytes]) -> None:
    """A refusal of the gateway's own: JSON with a reason, no 5xx, nobody else's name on it."""
    status, headers, body = response
    assert 200 <= status < 500, response
    assert "server" not in headers
    if status >= 400:
        assert headers["content-type"] == "application/json", response
        document = json.loads(body)
        reason = document["error"]["reason"] if isinstance(document["error"], dict) else document["reason"]
        assert re.fullmatch(REASON, reason), response


def gateway(victim: Victim) -> int:
    assert victim.installation.started.gateway_address
    return victim.installation.started.gateway_address.port


def post(*headers: bytes, body: bytes = BODY, path: bytes = b"/oauth2/token", version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST " + path + b" " + version + b"\r\n" + b"".join(headers) + b"\r\n" + body


HOST = b"Host: a\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
LENGTH_4 = b"Content-Length: 4\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
