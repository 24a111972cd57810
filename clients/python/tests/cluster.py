"""A small Kubernetes API for one Secret, over TLS on loopback: what the client needs of it, kept to the letter.

GET answers the object; PATCH takes a merge patch (RFC 7386) and refuses another resourceVersion than the present one
with 409; every refusal is a `Status` object. Bearer tokens are checked. Requests are recorded.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

PATH = "/api/v1/namespaces/storage/secrets/ingester"
REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass
class Cluster:
    """The object, who may touch it, and what was asked."""

    pod: Path
    """A pod's folder with `token`, `ca.crt` and `namespace`."""
    url: str = ""
    data: dict[str, str] | None = None
    """The Secret's data, in base64; None while there is no Secret."""
    version: int = 1
    tokens: set[str] = field(default_factory=lambda: {"pod-token"})
    faults: list[int] = field(default_factory=list)
    """Statuses that the next requests are answered with."""
    lose_answers: int = 0
    """How many of the next changes are made without an answer."""
    html: bool = False
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, key: str, content: bytes) -> None:
        """As somebody else would."""
        with self.lock:
            self.data = (self.data or {}) | {key: base64.b64encode(content).decode()}
            self.version += 1

    def content(self, key: str = "credentials.json") -> dict[str, Any]:
        assert self.data is not None
        found: dict[str, Any] = json.loads(base64.b64decode(self.data[key]))
        return found

    def methods(self) -> list[str]:
        return [method for method, *_ in self.requests]

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]] | None:
        with self.lock:
            self.requests.append((method, path, headers, body))
            if self.faults:
                return self.status(self.faults.pop(0))
            if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
                return self.status(401)
            if path != PATH or self.data is None:
                return self.status(404)
            if method == "PATCH":
                return self.patched(headers, json.loads(body))
            return 200, self.object()

    def patched(self, headers: dict[str, str], patch: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        assert self.data is not None
        if headers.get("Content-Type") != "application/merge-patch+json":
            return self.status(415)
        if patch.get("metadata", {}).get("resourceVersion", str(self.version)) != str(self.version):
            return self.status(409)
        merged = self.data | patch.get("data", {})
        self.data = {key: value for key, value in merged.items() if value is not None}
        self.version += 1
        if self.lose_answers:
            self.lose_answers -= 1
            return None
        return 200, self.object()

    def object(self) -> dict[str, Any]:
        metadata = {"name": "ingester", "namespace": "storage", "resourceVersion": str(self.version)}
        return {"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": dict(self.data or {})}

    @staticmethod
    def status(code: int) -> tuple[int, dict[str, Any]]:
        return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": REASONS[code], "code": code}


def handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answered = cluster.answer(self.command, self.path, dict(self.headers.items()), body)
            if answered is None:
                self.close_connection = True
                return
            code, message = answered
            text = b"<html>a proxy</html>" if cluster.html else json.dumps(message).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            if code == 429:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PATCH = do_PUT = answer  # noqa: N815  # as http.server calls them

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A cluster with no Secret yet, and a pod's folder for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    (folder / "token").write_text("pod-token\n")
    (folder / "namespace").write_text("storage")
    cluster = Cluster(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(cluster))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that refuse its certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    cluster.url = f"https://127.0.0.1:{server.server_address[1]}"
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
