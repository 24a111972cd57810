"""What verifiers fetch from the authority by URL, and nothing else: a server of the standard library, in a thread."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from artstore.identity.testing.faults import Faults
from artstore.identity.testing.parts import Parts
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

JWKS_PATH = "/.well-known/jwks.json"
METADATA_PATH = "/.well-known/oauth-authorization-server"
REVOCATIONS_PATH = "/.well-known/revocations"
REVOCATIONS_MAX_AGE_SECONDS = 5


class Page:
    """What is served at a path."""

    def __init__(self, kind: str, max_age_seconds: int, body: str) -> None:
        self.body = body.encode()
        self.headers = {
            "Content-Type": kind,
            "Content-Length": str(len(self.body)),
            "Cache-Control": f"public, max-age={max_age_seconds}",
            "ETag": f'"{hashlib.sha256(self.body).hexdigest()[:32]}"',
        }


class Web:
    """Listens from the moment it is made, so that its URL can be the issuer; answers once it is told of what."""

    def __init__(self) -> None:
        self._pages: dict[str, Callable[[], Page]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def start(self, parts: Parts, faults: Faults) -> None:
        self._pages = pages(parts)
        self._faults, self._lock = faults, parts.changed
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self.close()

    def close(self) -> None:
        """Gives up the port; for one that was never started this is all."""
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.answer(self)

            def log_message(self, *arguments: Any) -> None:
                """Nothing: a test's output is its own."""

        return Handler

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        with self._lock:
            found, down = self._pages.get(request.path), self._faults.down
            if found is not None:
                self._faults.calls[request.path] += 1
            page = found() if found is not None and not down else None
        if page is None:
            request.send_error(503 if down else 404)
            return
        unchanged = request.headers.get("If-None-Match") == page.headers["ETag"]
        request.send_response(304 if unchanged else 200)
        for name, value in page.headers.items():
            if not unchanged or name != "Content-Length":
                request.send_header(name, value)
        request.end_headers()
        if not unchanged:
            request.wfile.write(page.body)


def pages(parts: Parts) -> dict[str, Callable[[], Page]]:
    max_age = int(parts.jwks_max_age.total_seconds())
    return {
        JWKS_PATH: lambda: Page("application/json", max_age, text({"keys": document(parts.key_set())["keys"]})),
        METADATA_PATH: lambda: Page(
            "application/json", max_age, text({"response_types_supported": [], **document(parts.metadata())})
        ),
        REVOCATIONS_PATH: lambda: Page("application/jwt", REVOCATIONS_MAX_AGE_SECONDS, parts.revocations()),
    }


def document(message: Message) -> dict[str, Any]:
    return MessageToDict(message, preserving_proto_field_name=True)


def text(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
