"""ASGI middleware, for FastAPI, Starlette and whatever else speaks ASGI: each request's token is verified, a table says
who may do what, the handler finds the caller by `current_caller()` or `request.state.caller`.

    app.add_middleware(BearerMiddleware, verifier=verifier, table={"GET /files/{id}": scope("storage.read")})

Refusals are RFC 6750 §3's. A WebSocket is closed (1008) when its token expires, is revoked, or its key is; an HTTP
answer that has begun is not cut off.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

from artstore.identity.admission import RETRY_AFTER, Admission, NotAdmitted, Refusal
from artstore.identity.authorization import WEBSOCKET, RouteTable, Rule
from artstore.identity.caller import calling
from artstore.identity.verifier import TokenVerifier
from artstore.identity.watching import while_good

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY_VIOLATION = 1008
"""RFC 6455 §7.4.1."""
DENIAL = "websocket.http.response"
"""The ASGI extension by which a handshake is answered with more than a bare 403."""


class BearerMiddleware:
    """Lets in whom the table lets in."""

    def __init__(self, app: App, *, verifier: TokenVerifier, table: RouteTable | Mapping[str, Rule]) -> None:
        """`table` as RouteTable has it, of paths as the app sees them, below its `root_path`; raises ValueError."""
        self._app = app
        self._admission = Admission(verifier)
        self._table = table if isinstance(table, RouteTable) else RouteTable(table)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] not in ("http", "websocket"):  # its life cycle
            await self._app(scope, receive, send)
            return
        method, path = method_of(scope), path_of(scope)
        rule = self._table.rule(method, path)
        if rule is not None and rule.public:
            await self._app(scope, receive, send)
            return
        what = ascii(f"{method} {path[:200]}")
        try:
            caller = await self._admission.admit(rule, authorizations(scope), what)
        except NotAdmitted as refused:
            await refuse(scope, receive, send, refused.refusal)
            return
        scope["auth"] = caller
        scope.setdefault("state", {})["caller"] = caller
        with calling(caller):
            if method != WEBSOCKET:
                await self._app(scope, receive, send)
                return
            try:
                await while_good(self._app(scope, receive, send), partial(self._admission.still, caller, what))
            except NotAdmitted:
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "invalid_token"})


def method_of(scope: Scope) -> str:
    """What the table calls it. An HTTP request whose method is the word WEBSOCKET is none, and has no such row."""
    if scope["type"] == "websocket":
        return WEBSOCKET
    method = str(scope["method"])
    return method.lower() if method == WEBSOCKET else method


def path_of(scope: Scope) -> str:
    """The path below the app's root, as its router will see it."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :] or "/"
    return path


def authorizations(scope: Scope) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"authorization"]


async def refuse(scope: Scope, receive: Receive, send: Send, refusal: Refusal) -> None:
    """Answers in place of the app."""
    if scope["type"] == "http":
        await respond(send, "http.response", refusal)
        return
    await receive()  # websocket.connect
    if DENIAL in (scope.get("extensions") or {}):
        await respond(send, DENIAL, refusal)
    else:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})


async def respond(send: Send, kind: str, refusal: Refusal) -> None:
    code = refusal.error or ("temporarily_unavailable" if refusal.status == 503 else "missing_token")
    body = json.dumps({"error": code, "error_description": refusal.message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if refusal.challenge:
        headers.append((b"www-authenticate", refusal.challenge.encode("ascii")))
    if refusal.status == 503:
        headers.append((b"retry-after", str(int(RETRY_AFTER.total_seconds())).encode()))
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
