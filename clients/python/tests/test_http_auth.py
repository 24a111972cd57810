"""Tokens on HTTP requests by httpx and requests: sent, replaced once when refused, and to nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import requests
from artstore.identity import SyncTokenSource, TokenSource
from artstore.identity.bearer import refused
from artstore.identity.httpx_auth import HttpxAuth
from artstore.identity.requests_auth import RequestsAuth
from artstore.identity.v1 import token_service_pb2 as pb
from canned import Canned
from clocks import Clock

ME = {"client_id": "sa_dev_test_00000000", "client_secret": "the-secret"}
INVALID = 'Bearer realm="b", error="invalid_token", error_description="revoked"'


@dataclass
class Host:
    """An HTTP server that records what it was sent; refuses tokens, and redirects where it is told to."""

    url: str = ""
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    challenge: str = INVALID
    redirect: str = ""

    @property
    def tokens(self) -> list[str]:
        return [token for _, token, _ in self.seen]


def handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "")
            host.seen.append((self.path, token, body))
            if token in host.refused:
                self.send_response(401)
                self.send_header("WWW-Authenticate", host.challenge)
            elif host.redirect and self.path == "/":
                self.send_response(307)
                self.send_header("Location", host.redirect)
            else:
                self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_GET = do_POST = answer  # noqa: N815  # as http.server calls them

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def serving(name: str) -> Iterator[Host]:
    host = Host()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(host))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    host.url = f"http://{name}:{server.server_address[1]}"
    yield host
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def host() -> Iterator[Host]:
    yield from serving("127.0.0.1")


@pytest.fixture
def stranger() -> Iterator[Host]:
    """Under another name, on another port."""
    yield from serving("localhost")


@dataclass
class Answer:
    status: int
    url: str


Asked = Callable[..., Any]


class Library:
    """One library and a source: `await ask(url, content=…)`."""

    def __init__(self, kind: str, target: str) -> None:
        self.kind = kind
        self.clock = Clock()
        options: dict[str, Any] = ME | {"clock": self.clock}
        self.source: TokenSource | SyncTokenSource
        self.source = (TokenSource if kind == "httpx.AsyncClient" else SyncTokenSource)(target, **options)

    async def ask(self, url: str, content: Any = None) -> Answer:
        if isinstance(self.source, TokenSource):
            async with httpx.AsyncClient(auth=HttpxAuth(self.source), follow_redirects=True) as client:
                if content is not None and not isinstance(content, bytes):
                    content = aiter_of(content)
                response = await client.post(url, content=content)
                return Answer(response.status_code, str(response.url))
        return await asyncio.to_thread(self.threaded, self.source, url, content)

    def threaded(self, source: SyncTokenSource, url: str, content: Any) -> Answer:
        if self.kind == "requests":
            with requests.Session() as session:
                session.auth = RequestsAuth(source)
                answer = session.post(url, data=content, timeout=10)
                return Answer(answer.status_code, answer.url)
        with httpx.Client(auth=HttpxAuth(source), follow_redirects=True) as client:
            response = client.post(url, content=content)
            return Answer(response.status_code, str(response.url))

    async def close(self) -> None:
        if isinstance(self.source, TokenSource):
            await self.source.close()
        else:
            self.source.close()


async def aiter_of(parts: Any) -> Any:
    for part in parts:
        yield part


@pytest.fixture(params=["httpx.AsyncClient", "httpx.Client", "requests"])
async def library(request: pytest.FixtureRequest, server: Canned) -> Any:
    server.answers["IssueToken"] = lambda _: pb.IssueTokenResponse(
        access_token=f"token-{len(server.named('IssueToken'))}", expires_in=1800
    )
    made = Library(request.param, server.target)
    yield made
    await made.close()


async def test_each_request_has_the_token(library: Library, host: Host) -> None:
    """The same one, as long as it is good."""
    for _ in range(2):
        assert (await library.ask(host.url + "/")).status == 200
    assert host.tokens == ["Bearer token-1"] * 2


async def test_a_refused_token_is_replaced_once(library: Library, host: Host) -> None:
    """The request is made again with a new one, body included; where that is refused too, its caller learns it."""
    await library.ask(host.url + "/")
    library.clock.advance(60)
    host.refused = {"Bearer token-1"}
    assert (await library.ask(host.url + "/", b"body")).status == 200
    assert host.seen[1:] == [("/", "Bearer token-1", b"body"), ("/", "Bearer token-2", b"body")]
    library.clock.advance(60)
    host.refused = {f"Bearer token-{number}" for number in range(10)}
    assert (await library.ask(host.url + "/")).status == 401
    assert host.tokens[3:] == ["Bearer token-2", "Bearer token-3"]


async def test_a_refusal_of_another_kind(library: Library, host: Host) -> None:
    """A 401 that is not about the token is the caller's: the token is kept and nothing is asked again."""
    await library.ask(host.url + "/")
    library.clock.advance(60)
    host.refused, host.challenge = {"Bearer token-1"}, 'Bearer error="insufficient_scope"'
    assert (await library.ask(host.url + "/")).status == 401
    assert len(host.seen) == 2
    assert library.source.held() == "token-1"


async def test_a_body_that_is_used_up(library: Library, host: Host) -> None:
    """A stream can't be sent twice: the caller gets the 401, and the next request has a new token."""
    await library.ask(host.url + "/")
    library.clock.advance(60)
    host.refused = {"Bearer token-1"}
    assert (await library.ask(host.url + "/", iter([b"a", b"b"]))).status == 401
    assert host.seen[1:] == [("/", "Bearer token-1", b"ab")]
    assert (await library.ask(host.url + "/", iter([b"a", b"b"]))).status == 200
    assert host.seen[-1] == ("/", "Bearer token-2", b"ab")


async def test_a_redirect_to_another_host_has_no_token(library: Library, host: Host, stranger: Host) -> None:
    """Nor can the other host have one sent by refusing: what it says of tokens is not believed."""
    host.redirect = stranger.url + "/there"
    stranger.refused = {""}
    answer = await library.ask(host.url + "/")
    library.clock.advance(60)
    answer = await library.ask(host.url + "/")
    assert (answer.status, answer.url) == (401, stranger.url + "/there")
    assert stranger.tokens == ["", ""]
    assert host.tokens == ["Bearer token-1"] * 2
    assert library.source.held() == "token-1"


async def test_a_redirect_on_the_same_host_keeps_the_token(library: Library, host: Host) -> None:
    """As its caller expects; and a token that was replaced for the first request is the one that is sent on."""
    await library.ask(host.url + "/")
    library.clock.advance(60)
    host.redirect, host.refused = host.url + "/there", {"Bearer token-1"}
    assert (await library.ask(host.url + "/")).status == 200
    assert [(path, token) for path, token, _ in host.seen[1:]] == [
        ("/", "Bearer token-1"),
        ("/", "Bearer token-2"),
        ("/there", "Bearer token-2"),
    ]


async def test_a_source_of_the_wrong_kind(server: Canned, host: Host) -> None:
    """A client without asyncio needs a source without it, and says so."""
    async with TokenSource(server.target, **ME) as source:
        with httpx.Client(auth=HttpxAuth(source)) as client, pytest.raises(TypeError, match="SyncTokenSource"):
            client.get(host.url)  # noqa: ASYNC212  # it is refused before anything is sent
    with SyncTokenSource(server.target, **ME) as sync:
        async with httpx.AsyncClient(auth=HttpxAuth(sync)) as asyncing:
            with pytest.raises(TypeError, match="needs a TokenSource"):
                await asyncing.get(host.url)
    assert not host.seen


@pytest.mark.parametrize(
    ("status", "challenges", "expected"),
    [
        (401, [INVALID], True),
        (401, ["Bearer error=invalid_token"], True),
        (401, ['bearer realm="x",error="invalid_token"'], True),
        (401, ['Basic realm="x", Bearer error="invalid_token"'], True),
        (401, ['Basic realm="x"', 'Bearer error="invalid_token"'], True),
        (401, ["Bearer"], False),
        (401, ['Bearer error="insufficient_scope"'], False),
        (401, ['DPoP error="invalid_token"'], False),
        (401, [], False),
        (403, [INVALID], False),
        (200, [INVALID], False),
    ],
)
def test_what_a_refusal_looks_like(status: int, challenges: list[str], expected: bool) -> None:
    """RFC 6750 §3: a 401 whose Bearer challenge says invalid_token."""
    assert refused(status, challenges) is expected
