"""One HTTP request and its answer: headers, the bounded body, the caller's address, and the way out.

Bounds on a body's size and time hold for every endpoint alike, before its handler is asked.
"""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send

from artstore_grpc.addresses import Network, source_address
from artstore_grpc.call import HTTP, MAX_MESSAGE_BYTES, Call, correlated
from artstore_grpc.deadlines import DeadlinePassed, within
from artstore_grpc.errors import InvalidRequest
from artstore_grpc.gateway.answers import BODY_TIMEOUT, BODY_TOO_LARGE, Answer, Refused

BODY_SECONDS = 10.0
"""How long a body may take to arrive; at 64 KiB a client slower than a modem."""
REQUEST_SECONDS = 30.0
"""How long a request may take in all: what is left once its body is there is the time that the Backend has."""
MAX_DRAINED_BYTES = 4 * 1024 * 1024
"""How much of a refused body is read and dropped: closing on unread data would reset the connection, and the answer
would be lost with it (RFC 9112 §9.6)."""
DRAIN_SECONDS = 2.0
PIECE_BYTES = 64 * 1024
"""How much of an answer is handed to the connection at once."""
MAX_AUTHORIZATION_BYTES = 8 * 1024
"""An access token at every bound is under 7 KiB; a gRPC server takes 16 KiB of metadata in all."""

WITHOUT_CONTENT = frozenset({204, 304})
"""Statuses without content, and without its length (RFC 9110 §8.6)."""


class ClientGone(Exception):
    """The caller closed the connection before its request was whole; there is nobody to answer."""


class Exchange:
    """A request being answered. Headers are read by lower-case name; `values` has all that came under one."""

    __slots__ = ("_answering", "_more", "_receive", "_send", "_trusted", "body", "call", "deadline", "headers", "scope")

    def __init__(self, scope: Scope, receive: Receive, send: Send, trusted: tuple[Network, ...]) -> None:
        self.scope = scope
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.body = b""
        self.deadline = asyncio.get_running_loop().time() + REQUEST_SECONDS
        self._receive = receive
        self._send = send
        self._trusted = trusted
        self._answering = False
        self._more = True
        self.call = Call(method="", source=self._source(), door=HTTP)
        if b"x-request-id" in self.headers or b"traceparent" in self.headers:
            state = ",".join(value.decode("latin-1") for value in self.values(b"tracestate"))
            correlated(self.call, self.text(b"x-request-id"), self.text(b"traceparent"), state)

    def text(self, name: bytes) -> str:
        """A header's value, empty without one."""
        return self.headers.get(name, b"").decode("latin-1")

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.scope["headers"] if key == name]

    def prepared(self, method: str) -> Call:
        """The call of an API method. Raises InvalidRequest for `Authorization` sent twice or out of bounds."""
        if b"authorization" in self.headers:
            self.call.authorization = self._authorization()
        self.call.timeout_seconds = max(0.0, self.deadline - asyncio.get_running_loop().time())
        self.call.method = method
        return self.call

    def _authorization(self) -> str:
        value = self.text(b"authorization")
        if len(self.values(b"authorization")) > 1:
            raise InvalidRequest("The Authorization header was sent twice.", reason="REPEATED_AUTHORIZATION")
        if len(value) > MAX_AUTHORIZATION_BYTES or not (value.isascii() and value.isprintable()):
            raise InvalidRequest("The Authorization header is malformed.", reason="MALFORMED_AUTHORIZATION")
        return value

    def _source(self) -> str:
        peer = self.scope.get("client")
        address = peer[0] if peer else ""
        if not self._trusted:
            return source_address(address, (), ())
        forwarded = [v for name, v in self.scope["headers"] if name in (b"x-forwarded-for", b"forwarded")]
        return source_address(address, [value.decode("latin-1") for value in forwarded], self._trusted)

    async def read(self) -> None:
        """Reads the body. Raises Refused for one that is too large or too slow, ClientGone."""
        length = self.headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in self.headers:
            return
        if length is not None and int(length) > MAX_MESSAGE_BYTES:
            raise Refused(BODY_TOO_LARGE)
        try:
            self.body = await within(BODY_SECONDS, self._whole())
        except DeadlinePassed:
            raise Refused(BODY_TIMEOUT) from None

    async def _whole(self) -> bytes:
        body = b""
        while self._more:
            body += await self._part()
            if len(body) > MAX_MESSAGE_BYTES:
                raise Refused(BODY_TOO_LARGE)
        return body

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        self._more = message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def answer(self, answer: Answer, *, linger: bool = False) -> None:
        """Sends an answer, once. With `linger` the rest of the request is read and dropped, within bounds, before the
        connection closes."""
        assert not self._answering
        self._answering = True
        headers = [
            *answer.headers,
            (b"x-request-id", self.call.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        if answer.status not in WITHOUT_CONTENT:
            headers.append((b"content-length", str(len(answer.body)).encode()))
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if not linger:
            await self._send_body(answer.body)
            return
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await self._drain()
        await self._send({"type": "http.response.body", "body": b""})

    async def _send_body(self, body: bytes) -> None:
        """A piece at a time, each once the one before is on its way: who doesn't read has us hold little."""
        start = 0
        while len(body) - start > PIECE_BYTES:
            piece = body[start : start + PIECE_BYTES]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            start += PIECE_BYTES
        await self._send({"type": "http.response.body", "body": body[start:]})

    async def _drain(self) -> None:
        drained = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._more and drained <= MAX_DRAINED_BYTES:
                    drained += len(await self._part())
        except (TimeoutError, ClientGone):
            return
