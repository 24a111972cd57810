"""HTTP itself: broken, slow, huge and clever requests get an answer of ours, and the connection ends well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from artstore_grpc.errors import CannotBind, DeadlineExceeded
from artstore_grpc.gateway import exchange, protocol
from artstore_grpc.gateway.exchange import REQUEST_SECONDS
from artstore_grpc.listeners import bind
from artstore_grpc.settings import Address
from tests.gateway.conftest import ANY, Door, opened

HEAD = b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"


class Wire:
    """A raw connection to a door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response."""
        head = (await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), 10)).decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body

    async def closed(self) -> bool:
        """Whether the server closes without another word."""
        return await asyncio.wait_for(self._reader.read(), 10) == b""


@pytest.fixture
async def wire(door: Door) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
    yield Wire(reader, writer)
    writer.close()


BROKEN = [
    ("not HTTP", b"hello\r\n\r\n"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("an unknown method", b"BREW /oauth2/token HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("CONNECT", b"CONNECT example:80 HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a NUL in a header", HEAD + b"X: a\0b\r\n\r\n"),
    ("a space before a colon", HEAD + b"X : y\r\n\r\n"),
    ("Content-Length that is none", HEAD + b"Content-Length: x\r\n\r\n"),
    ("negative Content-Length", HEAD + b"Content-Length: -1\r\n\r\n"),
    ("two Content-Lengths", HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    (
        "Content-Length and chunks (RFC 9112 §6.1)",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a broken chunk", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ("non-ASCII path", b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n"),
]


@pytest.mark.parametrize("data", [case[1] for case in BROKEN], ids=[case[0] for case in BROKEN])
async def test_broken_http_gets_our_own_400(data: bytes, wire: Wire, door: Door) -> None:
    """JSON, in the dialect of the path where there is one; then the connection closes."""
    await wire.send(data)
    status, headers, body = await wire.answer()
    assert (status, headers["content-type"], headers["connection"]) == (400, "application/json", "close")
    assert headers["cache-control"] == "no-store"
    error = json.loads(body)
    assert (error if "reason" in error else error["error"])["reason"] == "MALFORMED_HTTP"
    assert await wire.closed()
    assert not door.backend.calls


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(2_000)) + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: " + b"a" * 70_000,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 70_000,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 3_000_000 + b"\r\n\r\n",
    ],
    ids=["one header", "many headers", "path", "trailer", "chunk extension", "3 MB header"],
)
async def test_a_head_or_framing_without_end_is_cut(data: bytes, wire: Wire) -> None:
    """Nothing that is not body can fill the memory; the sender is told before the connection closes."""
    await wire.send(data)
    status, _, body = await wire.answer()
    assert (status, b"HEADERS_TOO_LARGE" in body) == (431, True)
    assert await wire.closed()


async def test_a_body_too_large_is_refused_before_it_is_sent(wire: Wire) -> None:
    """`Expect: 100-continue`: the client is spared the sending."""
    await wire.send(HEAD + b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n")
    assert (await wire.answer())[0] == 413


@pytest.mark.parametrize("size", [65_537, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_too_large_is_drained_and_answered(size: int, chunked: bool, wire: Wire, door: Door) -> None:
    """The answer arrives though the client sends everything first, by length or in chunks."""
    body = b"x" * size
    framed = b"%x\r\n%s\r\n0\r\n\r\n" % (size, body) if chunked else body
    length = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % size
    await wire.send(HEAD + length + framed)
    status, headers, answer = await wire.answer()
    assert (status, headers["connection"], json.loads(answer)["error"]) == (413, "close", "invalid_request")
    assert await wire.closed()
    assert not door.backend.calls


async def test_a_body_of_exactly_the_limit_is_read(wire: Wire, door: Door) -> None:
    """64 KiB are in."""
    body = b"grant_type=client_credentials&x=".ljust(65_536, b"y")
    await wire.send(HEAD + b"Content-Length: 65536\r\n\r\n" + body)
    await wire.answer()
    assert door.message.grant_type == "client_credentials"


async def test_a_slow_body_is_told_so(wire: Wire, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """408 in the endpoint's dialect, also where Content-Length promised more than came."""
    monkeypatch.setattr(exchange, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(exchange, "DRAIN_SECONDS", 0.05)
    await wire.send(HEAD + b"Content-Length: 100\r\n\r\ngrant_type=")
    status, headers, body = await wire.answer()
    assert (status, headers["cache-control"], json.loads(body)["reason"]) == (408, "no-store", "BODY_TIMEOUT")
    assert await wire.closed()


async def test_a_slow_head_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says nothing, or not enough, does not stay."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    monkeypatch.setattr(protocol, "DRAIN_SECONDS", 0.05)
    async with opened() as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
        wire = Wire(reader, writer)
        await wire.send(b"GET /health/live HTTP/1.1\r\nX: ")
        assert (await wire.answer())[0] == 408
        assert await wire.closed()
        writer.close()


async def test_a_request_has_an_end(door: Door) -> None:
    """The backend is told how long it has; when that has passed it is 504, in each dialect."""
    door.backend.answer = DeadlineExceeded()
    token = await door.client.post("/oauth2/token", data={"grant_type": "client_credentials"})
    accounts = await door.client.get("/api/v1/service-accounts")
    assert (token.status_code, token.json()["error"]) == (504, "temporarily_unavailable")
    assert (accounts.status_code, accounts.json()["error"]["status"]) == (504, "DEADLINE_EXCEEDED")
    for _, call in door.backend.calls:
        assert call.timeout_seconds is not None
        assert 0.9 * REQUEST_SECONDS < call.timeout_seconds <= REQUEST_SECONDS


async def test_an_answered_request_is_not_lost_to_the_garbage_behind_it(wire: Wire) -> None:
    """A client that miscounts its body still learns what became of the request."""
    await wire.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n\x00garbage\r\n\r\n")
    status, headers, _ = await wire.answer()
    assert (status, headers["connection"]) == (200, "close")


async def test_pipelined_requests_are_answered_in_order(wire: Wire) -> None:
    """RFC 9112 §9.3.2."""
    await wire.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [(await wire.answer())[0], (await wire.answer())[0]] == [200, 404]


async def test_a_trailer_never_passes_for_a_header(wire: Wire, door: Door) -> None:
    """RFC 9110 §6.5.1: credentials behind the body are not looked at."""
    body = b"grant_type=client_credentials"
    chunks = b"%x\r\n%s\r\n0\r\nAuthorization: Basic eDp5\r\n\r\n" % (len(body), body)
    await wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    await wire.answer()
    assert door.call.authorization is None


async def test_an_upgrade_is_ignored(wire: Wire) -> None:
    """RFC 9110 §7.8: HTTP/1.1 is what there is."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
    await wire.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\n" + upgrade)
    assert (await wire.answer())[0] == 200


async def test_connections_are_kept_alive_through_refusals(wire: Wire) -> None:
    """A refused request costs the client no new connection."""
    for _ in range(3):
        await wire.send(HEAD + b"Content-Length: 3\r\n\r\na=b")
        status, headers, _ = await wire.answer()
        assert (status, "connection" in headers) == (500, False)


async def test_the_server_says_nothing_of_itself(door: Door) -> None:
    """No name, no version."""
    response = await door.client.get("/health/live")
    assert "server" not in response.headers
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_stop_lets_a_request_finish() -> None:
    """In-flight requests are answered within the grace; idle connections don't hold it up."""
    async with opened(grace=timedelta(seconds=5)) as door:
        release = asyncio.Event()

        async def slow() -> None:
            await release.wait()
            raise AssertionError  # the answer is a 500; what counts is that there is one

        door.backend.answer = slow
        idle = await asyncio.open_connection("127.0.0.1", door.server.port)
        request = asyncio.create_task(door.client.get("/api/v1/service-accounts"))
        await door.backend.called.wait()
        stopping = asyncio.create_task(door.server.stop())
        assert await idle[0].read() == b""  # closed at once, while the other one is served
        release.set()
        response = await request
        assert (response.status_code, response.headers["connection"]) == (500, "close")
        await asyncio.wait_for(stopping, 4)
        idle[1].close()


async def test_stop_ends_what_outlives_the_grace() -> None:
    """A request that won't end is told 503 in its dialect."""
    async with opened(grace=timedelta(0)) as door:

        async def never() -> None:
            await asyncio.Event().wait()

        door.backend.answer = never
        request = asyncio.create_task(door.client.get("/api/v1/service-accounts"))
        await door.backend.called.wait()
        await asyncio.wait_for(door.server.stop(), 4)
        response = await request
        assert (response.status_code, response.json()["error"]["reason"]) == (503, "SHUTTING_DOWN")


async def test_a_taken_port_fails_loudly(door: Door) -> None:
    """Two servers never share a port silently."""
    with pytest.raises(CannotBind, match="Can't listen on"):
        bind(Address(host="127.0.0.1", port=door.server.port))
    with pytest.raises(CannotBind, match="Can't listen on"):
        bind(Address(host="192.0.2.1", port=0))


def test_small_answers_are_not_held_back() -> None:
    """asyncio switches Nagle's algorithm off only on sockets that name their protocol."""
    import socket

    with bind(ANY) as listener:
        assert listener.proto == socket.IPPROTO_TCP
