"""An HTTPS server of the tests' own, on the loopback: its certificate is from a CA that the test made (without one it
is plain HTTP), and every request is kept as it came. What it answers is a function of the request.
"""

from __future__ import annotations

import contextlib
import ssl
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import trustme

JOIN_SECONDS = 10.0


@dataclass(frozen=True)
class Request:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    """An answer. A body that isn't bytes is sent part by part, until the client has enough of it."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""


Answer = Callable[[Request], Response]


class HttpsServer(ThreadingHTTPServer):
    """`with HttpsServer(answer, ca) as server: server.url`. `closing` is set when it is time for slow answers to end;
    `failures` has what went wrong in connections, such as a handshake that the client broke off."""

    daemon_threads = True

    def __init__(self, answer: Answer, ca: trustme.CA | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []
        self.closing = threading.Event()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.scheme = "https" if ca else "http"
        if ca:
            ca.issue_cert("127.0.0.1", "localhost").configure_cert(self.context)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join(JOIN_SECONDS)
        self.server_close()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, so that a client that doesn't shake hands holds up nobody."""
        if self.scheme == "http":
            Handler(request, client_address, self)
            return
        with self.context.wrap_socket(request, server_side=True) as wrapped:
            Handler(wrapped, client_address, self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        assert error is not None
        self.failures.append(error)


class Handler(BaseHTTPRequestHandler):
    server: HttpsServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return

    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        request = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        self.server.requests.append(request)
        response = self.server.answer(request)
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if isinstance(response.body, bytes):
            self.send_header("content-length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)
            return
        self.send_header("connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has had enough
            for part in response.body:
                self.wfile.write(part)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = respond  # noqa: N815  # http.server's names


def ca_file(ca: trustme.CA, folder: Path) -> Path:
    """A CA's certificate in a file, for clients."""
    path = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path
