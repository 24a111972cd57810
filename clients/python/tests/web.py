"""A web server that answers with what a test put there, plain or by TLS, whole or byte by byte; it keeps what it was
asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler"], None]


class Web(ThreadingHTTPServer):
    """`replies` by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, Reply] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.over = threading.Event()
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are what tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.replies.get(self.path, answer(404, b"not here"))(self)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def answer(status: int, body: bytes, **headers: str) -> Reply:
    def reply(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return reply


def jsons(document: Any, **headers: str) -> Reply:
    return answer(200, json.dumps(document).encode(), Content_Type="application/json", **headers)


def tagged(document: Any, etag: str) -> Reply:
    """As a good server does it (RFC 9110 §13.1.2)."""

    def reply(handler: Handler) -> None:
        if handler.headers.get("If-None-Match") == etag:
            answer(304, b"", ETag=etag, Cache_Control="max-age=600")(handler)
        else:
            jsons(document, ETag=etag, Cache_Control="public, max-age=60")(handler)

    return reply


def dripping(handler: Handler) -> None:
    """A byte every now and then, for ever."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b" ")


def endless(handler: Handler) -> None:
    """As fast as it goes, with no end."""
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.over.is_set():
        handler.wfile.write(b" " * 65536)


def cut_off(handler: Handler) -> None:
    """Half of what was announced."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"keys": []}')


def silent(handler: Handler) -> None:
    """Nothing, for ever."""
    handler.server.over.wait(20)


@contextmanager
def web(tls: ssl.SSLContext | None = None) -> Iterator[Web]:
    server = Web()
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
