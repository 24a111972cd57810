"""uvicorn's HTTP/1.1 protocol, with our bounds and our words where a request is broken before the application sees it.

httptools bounds neither the head of a request nor the time it takes, and uvicorn answers plain text; here everything
that is not body (head, trailers, chunk framing) is bounded, a head has to arrive in time, and every refusal is JSON.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from artstore_grpc.gateway.answers import (
    BODY_TIMEOUT,
    HEADERS_TOO_LARGE,
    MALFORMED_HTTP,
    TOO_MANY_CONNECTIONS,
    Answer,
    Refusal,
)
from artstore_grpc.gateway.endpoint import REFUSED
from artstore_grpc.gateway.exchange import DRAIN_SECONDS, MAX_DRAINED_BYTES

HEAD_SECONDS = 10.0
"""How long a connection may take over the head of a request."""
ANSWER_SECONDS = 60.0
"""How long a caller may take over an answer that the connection can't hold; 7 MB take a second at 60 Mbit/s."""
MAX_HEAD_BYTES = 16 * 1024
"""The request line and the headers, together; what most servers take."""
AGE_JITTER = 0.1
"""Of a connection's age, as gRPC's core has it: clients that came together don't all leave together."""
MAX_FRAMING_BYTES = 64 * 1024
"""Everything of one request that is not body; chunks of 16 bytes and more stay under it."""


class Protocol(HttpToolsProtocol):
    """One connection. The application has `refuse(path, refusal, peer)`, which says a refusal in the path's dialect,
    and logs it."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._timer: asyncio.TimerHandle | None = None
        self._late: asyncio.TimerHandle | None = None
        self._framing = 0
        self._head = 0
        self._head_complete = False
        self._too_large = False
        self._deaf = False
        self._dropped = 0
        self._old_at = math.inf
        self.url = b""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        max_age: float = self.config.max_age_seconds  # type: ignore[attr-defined]  # ours (server.py), as the next
        if max_age:
            jitter = random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)  # noqa: S311 - spreads load, keeps no secret
            self._old_at = self.loop.time() + max_age * jitter
        if len(self.connections) > self.config.max_connections:  # type: ignore[attr-defined]
            self._refuse(TOO_MANY_CONNECTIONS)
        else:
            self._await(HEAD_SECONDS, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._cancel_late()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._late is None:
            self._late = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.cycle is None or self.cycle.response_complete:
            self._cancel_late()

    def on_response_complete(self) -> None:
        if not self.flow.write_paused:
            self._cancel_late()
        super().on_response_complete()

    def _cancel_late(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._drop(data)
            return
        self._unset_keepalive_if_required()
        self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._decline_upgrade()
        except httptools.HttpParserError:
            self._refuse(HEADERS_TOO_LARGE if self._too_large else MALFORMED_HTTP)
        else:
            bound = MAX_FRAMING_BYTES if self._head_complete else MAX_HEAD_BYTES
            if self._framing > bound and self._in_message():
                self._refuse(HEADERS_TOO_LARGE)

    def _in_message(self) -> bool:
        return not self._head_complete or (self.cycle is not None and self.cycle.more_body)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0
        self._head_complete = False
        if self._timer is None:
            self._await(HEAD_SECONDS, self._head_is_late)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        if not self._head_complete:  # a trailer must never pass for a header (RFC 9110 §6.5.1)
            super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD_BYTES:
            self._too_large = True
            raise ValueError("the head is too large")  # stops the parser; the caller is told in data_received

    def on_headers_complete(self) -> None:
        self._head_complete = True
        self._cancel_timer()
        super().on_headers_complete()
        if self.loop.time() >= self._old_at and self.cycle is not None:
            self.cycle.keep_alive = False  # its answer says so, and no well-behaved client has sent another request

    def on_body(self, body: bytes) -> None:
        self._framing = max(0, self._framing - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._framing = 0

    def _decline_upgrade(self) -> None:
        """The request is answered as if it had not asked (RFC 9110 §7.8); what follows it can't be parsed any more."""
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def _await(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = self.loop.call_later(seconds, then)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self._refuse(BODY_TIMEOUT)

    def _refuse(self, refusal: Refusal) -> None:
        """Says why, reads and drops what still comes within bounds (closing on unread data would reset the connection
        and the answer with it), and closes. Where an earlier request is still to be answered that comes first, and is
        the last."""
        self._cancel_timer()
        if self._deaf or self.transport.is_closing():
            return
        self._deaf = True
        if self.cycle is not None and not self.cycle.response_complete:
            if not self._is_about(self.cycle):
                self.cycle.keep_alive = False
                return
            self.cycle.scope[REFUSED] = True  # type: ignore[literal-required]  # ours
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        app: Any = self.config.app
        peer = self.client[0] if self.client else ""
        self.transport.write(rendered(app.refuse(self._path(), refusal, peer)))
        self.transport.write_eof()
        self._await(DRAIN_SECONDS, self.transport.close)

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > MAX_DRAINED_BYTES:
            self.transport.close()

    def _is_about(self, cycle: Any) -> bool:
        """Whether the broken request is the one that this cycle answers, and the answer has not begun."""
        return self._head_complete and cycle.more_body and not cycle.response_started and not self.pipeline

    def _path(self) -> str:
        return self.url.partition(b"?")[0].decode("latin-1")


def rendered(answer: Answer) -> bytes:
    """An answer as it goes over the wire, for when there is no ASGI request to answer."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}".encode()]
    lines += [name + b": " + value for name, value in answer.headers]
    lines += [b"content-length: " + str(len(answer.body)).encode(), b"", answer.body]
    return b"\r\n".join(lines)
