"""The middleware around real apps: FastAPI and Starlette on a real uvicorn, WebSockets by Starlette's own client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn
from artstore.identity import (
    AUTHENTICATED,
    PUBLIC,
    BearerMiddleware,
    KeySet,
    Rule,
    TokenVerifier,
    current_caller,
    role,
    scope,
)
from artstore.identity.asgi import path_of
from artstore.identity.refusals import TokenRevoked
from fastapi import FastAPI
from issuer import AUDIENCE, ISSUER, Hands, Source, token
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

TABLE: dict[str, Rule] = {
    "GET /files/{id}": scope("storage.read"),
    "PUT /files/{id}": scope("storage.write", "storage.read"),
    "GET /threaded": scope("storage.read"),
    "GET /guarded": AUTHENTICATED,
    "GET /admin": role("admin"),
    "GET /open": PUBLIC,
    "GET /sub/*": scope("storage.read"),
    "GET /missing": AUTHENTICATED,
    "WEBSOCKET /feed": scope("storage.read"),
    "WEBSOCKET /open": PUBLIC,
}


class Parts:
    def __init__(self) -> None:
        self.hands, self.source = Hands(), Source()
        keys = KeySet(self.source, clock=self.hands.steady)
        self.verifier = TokenVerifier(
            ISSUER, audience=AUDIENCE, keys=keys, clock=self.hands.wall, steady=self.hands.steady
        )


def who() -> str:
    with contextlib.suppress(LookupError):
        return current_caller().client_id
    return "nobody"


async def show(request: Request) -> JSONResponse:
    state = getattr(request.state, "caller", None)
    return JSONResponse({"who": who(), "state": state and state.client_id})


@requires("storage.read")
async def guarded(request: Request) -> JSONResponse:
    return JSONResponse({"who": who(), "state": None})


async def feed(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(who())
    await socket.receive_text()


def threaded(request: Request) -> JSONResponse:
    """Starlette runs it in a thread."""
    return JSONResponse({"who": who(), "state": None})


def starlette_app(parts: Parts) -> Any:
    routes = [
        Route("/files/{id}", show, methods=["GET", "PUT", "DELETE"]),
        *(Route(path, show) for path in ("/admin", "/open", "/unlisted")),
        Route("/threaded", threaded),
        Route("/guarded", guarded),
        Mount("/sub", routes=[Route("/deep/{x}", show)]),
        WebSocketRoute("/feed", feed),
        WebSocketRoute("/open", feed),
        WebSocketRoute("/unlisted", feed),
    ]
    middleware = [Middleware(BearerMiddleware, verifier=parts.verifier, table=TABLE)]
    return Starlette(routes=routes, middleware=middleware)


def fastapi_app(parts: Parts) -> Any:
    app = FastAPI()
    app.add_middleware(BearerMiddleware, verifier=parts.verifier, table=TABLE)
    for path in ("/files/{id}", "/admin", "/open", "/unlisted", "/guarded", "/sub/deep/{x}"):
        app.api_route(path, methods=["GET", "PUT", "DELETE"])(fastapi_show)

    @app.get("/threaded")
    def in_thread() -> dict[str, Any]:
        return {"who": who(), "state": None}

    return app


async def fastapi_show(request: Request) -> dict[str, Any]:
    response = await show(request)
    shown: dict[str, Any] = json.loads(bytes(response.body))
    return shown


@contextlib.asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none", **options)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield client
    server.should_exit = True
    await task


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest_asyncio.fixture(params=[starlette_app, fastapi_app], ids=["starlette", "fastapi"])
async def site(request: pytest.FixtureRequest, parts: Parts) -> AsyncIterator[httpx.AsyncClient]:
    async with served(request.param(parts)) as client:
        yield client


def bearer(sent: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {sent}"}


async def test_who_calls(site: httpx.AsyncClient) -> None:
    """Coroutines, functions in threads, mounted apps: each finds its caller; nobody's is left over."""
    for path in ("/files/1", "/threaded", "/guarded", "/sub/deep/x"):
        answer = await site.get(path, headers=bearer(token()))
        assert answer.status_code == 200, path
        assert answer.json()["who"] == "sa_dev_tester_00000001"
    assert (await site.get("/files/1", headers=bearer(token()))).json()["state"] == "sa_dev_tester_00000001"
    assert (await site.get("/open")).json() == {"who": "nobody", "state": None}
    assert (await site.get("/files/1", headers=bearer(token(), "bEARER"))).status_code == 200


async def test_callers_do_not_mix(site: httpx.AsyncClient) -> None:
    """Many at once."""
    names = [f"client {number % 5}" for number in range(40)]
    sent = {name: token(client_id=name) for name in set(names)}
    answers = await asyncio.gather(*(site.get("/files/1", headers=bearer(sent[name])) for name in names))
    assert [answer.json()["who"] for answer in answers] == names


async def test_without_credentials(site: httpx.AsyncClient) -> None:
    """401 and a challenge without an error code (RFC 6750 §3.1); a token elsewhere than in the header is none."""
    requests = [
        site.get("/files/1"),
        site.get("/files/1", params={"access_token": token()}),
        site.get("/files/1", headers={"Authorization": "Basic YTpi"}),
        site.put("/files/1", data={"access_token": token()}),
        site.get("/files/1", headers={"Cookie": f"access_token={token()}"}),
        site.get("/unlisted"),
        site.get("/nowhere"),
    ]
    for request in requests:
        answer = await request
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.headers["cache-control"] == "no-store"


async def test_malformed_credentials(site: httpx.AsyncClient) -> None:
    """400 invalid_request: no guess at what was meant, and never the first or the last of two."""
    twice = [("Authorization", f"Bearer {token()}"), ("authorization", f"Bearer {token()}")]
    for headers in (bearer("a b"), bearer("a,b"), bearer('"a"'), {"Authorization": "Bearer"}, twice):
        answer = await site.get("/files/1", headers=headers)
        assert answer.status_code == 400
        assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_request", error_description="')
        assert answer.json()["error"] == "invalid_request"


async def test_a_token_that_is_not_valid(site: httpx.AsyncClient) -> None:
    """401 invalid_token; nothing of the token is repeated."""
    for sent in ("nonsense", token(aud="x"), token(exp=1)):
        answer = await site.get("/files/1", headers=bearer(sent))
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert sent not in answer.text


async def test_what_the_table_does_not_allow(site: httpx.AsyncClient) -> None:
    """403 insufficient_scope, with the scope that is missing; what no row names, nobody may do."""
    answer = await site.put("/files/1", headers=bearer(token(scope="storage.read")))
    assert answer.status_code == 403
    assert answer.headers["www-authenticate"].endswith('scope="storage.read storage.write"')
    assert (await site.put("/files/1", headers=bearer(token()))).status_code == 200
    for request in (
        site.get("/admin", headers=bearer(token())),
        site.get("/unlisted", headers=bearer(token(role="admin"))),
        site.delete("/files/1", headers=bearer(token(role="admin"))),
        site.get("/nowhere", headers=bearer(token())),
        site.get("/sub/../admin", headers=bearer(token())),
        site.get("/sub/%2e%2e/admin", headers=bearer(token())),
        site.get("/sub/deep/%2e%2e/x", headers=bearer(token())),
    ):
        answer = await request
        assert answer.status_code == 403
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert (await site.get("/admin", headers=bearer(token(role="admin")))).status_code == 200
    assert (await site.get("/missing", headers=bearer(token()))).status_code == 404


async def test_a_method_that_calls_itself_websocket(parts: Parts) -> None:
    """It is an HTTP request: the rows of WebSockets are not its."""
    reached: list[str] = []

    async def app(given: Any, receive: Any, send: Any) -> None:
        reached.append(given["type"])

    middleware = BearerMiddleware(app, verifier=parts.verifier, table={"WEBSOCKET /open": PUBLIC})
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    given = {"type": "http", "method": "WEBSOCKET", "path": "/open", "headers": []}
    await middleware(given, sent.get, sent.put)  # type: ignore[arg-type]
    assert (await sent.get())["status"] == 401
    assert not reached


async def test_when_nobody_can_verify(site: httpx.AsyncClient, parts: Parts) -> None:
    """503 with Retry-After, and no challenge: another token would not help."""
    parts.source.fails()
    answer = await site.get("/files/1", headers=bearer(token()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "www-authenticate" not in answer.headers


async def test_below_a_root_path(parts: Parts) -> None:
    """The table names paths as the app does, whatever a proxy puts before them."""
    async with served(starlette_app(parts), root_path="/api") as site:
        assert (await site.get("/files/1", headers=bearer(token()))).status_code == 200
        assert (await site.get("/admin", headers=bearer(token()))).status_code == 403


@pytest.mark.parametrize(
    ("path", "root", "seen"),
    [
        ("/api/x", "/api", "/x"),
        ("/api", "/api", "/"),
        ("/apix", "/api", "/apix"),
        ("/x", "", "/x"),
        ("/a/", "/a/", "/"),
    ],
)
def test_paths_below_a_root(path: str, root: str, seen: str) -> None:
    """As Starlette's router takes them."""
    assert path_of({"path": path, "root_path": root}) == seen


async def test_the_apps_life_is_its_own(parts: Parts) -> None:
    """Messages of a lifespan pass."""
    seen: list[str] = []

    async def app(given: Any, receive: Any, send: Any) -> None:
        seen.append(given["type"])

    await BearerMiddleware(app, verifier=parts.verifier, table={})({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]
    with pytest.raises(ValueError, match="is no route"):
        BearerMiddleware(app, verifier=parts.verifier, table={"/files": PUBLIC})


# --- WebSockets ---


class Socket:
    """A WebSocket as an ASGI server has it."""

    def __init__(self, app: Any, path: str, sent: str = "", *, denial: bool = False) -> None:
        headers = [(b"authorization", f"Bearer {sent}".encode())] if sent else []
        self.scope = {"type": "websocket", "path": path, "root_path": "", "headers": headers, "query_string": b""}
        self.scope |= {"subprotocols": [], "extensions": {"websocket.http.response": {}} if denial else {}}
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.received.put_nowait({"type": "websocket.connect"})
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(app(self.scope, self.received.get, self.sent.put))

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self.sent.get(), 10)


async def test_a_websocket(parts: Parts) -> None:
    """Its handler finds the caller; it ends as its app ends it."""
    socket = Socket(starlette_app(parts), "/feed", token())
    assert (await socket.next())["type"] == "websocket.accept"
    assert (await socket.next())["text"] == "sa_dev_tester_00000001"
    socket.received.put_nowait({"type": "websocket.receive", "text": "end"})
    await socket.task
    public = Socket(starlette_app(parts), "/open")
    assert (await public.next())["type"] == "websocket.accept"
    assert (await public.next())["text"] == "nobody"
    public.received.put_nowait({"type": "websocket.receive", "text": "end"})
    await public.task


@pytest.mark.parametrize(
    ("path", "sent", "status"),
    [("/feed", "", 401), ("/feed", "nonsense", 401), ("/feed", {"scope": ""}, 403), ("/unlisted", {}, 403)],
)
async def test_a_websocket_that_is_refused(parts: Parts, path: str, sent: Any, status: int) -> None:
    """Never accepted: answered as over HTTP where the server can, else closed, which is a 403."""
    given = token(**sent) if isinstance(sent, dict) else sent
    socket = Socket(starlette_app(parts), path, given, denial=True)
    start = await socket.next()
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert dict(start["headers"])[b"www-authenticate"].startswith(b"Bearer")
    await socket.task
    plain = Socket(starlette_app(parts), path, given)
    assert await plain.next() == {"type": "websocket.close", "code": 1008}
    await plain.task


async def test_a_websocket_ends_with_its_token(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired or revoked: closed within a second although nobody says anything."""

    def revoked(_: Any) -> None:
        raise TokenRevoked("It was revoked.")

    for end in (lambda: parts.hands.advance(1806), lambda: monkeypatch.setattr(parts.verifier, "recheck", revoked)):
        sent = token(iat=int(parts.hands.wall()), exp=int(parts.hands.wall()) + 1800)
        socket = Socket(starlette_app(parts), "/feed", sent)
        await socket.next()
        await socket.next()
        end()
        assert await socket.next() == {"type": "websocket.close", "code": 1008, "reason": "invalid_token"}
        await socket.task
