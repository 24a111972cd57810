"""The gateway as one ASGI application: which endpoint answers at which path, and in which dialect.

The API's own routes come from the protos' annotations; those below are OAuth's, discovery's and the probes'.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from artstore_grpc.addresses import Network, source_address
from artstore_grpc.call import HTTP, Backend, Call
from artstore_grpc.forms import BROKEN_ESCAPE
from artstore_grpc.gateway import dialects, discovery, docs, health, oauth, openapi, rest
from artstore_grpc.gateway.answers import MALFORMED_PATH, NO_SUCH_ROUTE, Answer, Refusal
from artstore_grpc.gateway.dialects import Dialect
from artstore_grpc.gateway.endpoint import OTHER, Counter, Endpoint, Handler, Nowhere, uncounted
from artstore_grpc.telemetry.lines import End, tell
from artstore_grpc.telemetry.logs import Logger, configured

if TYPE_CHECKING:  # OpenTelemetry is imported only where traces are on
    from artstore_grpc.telemetry.traces import Traces

Ready = Callable[[], Awaitable[bool]]

OAUTH_PREFIXES = ("/oauth2/", "/api/v1/auth/")
"""Below these even what does not exist is said in OAuth's dialect."""

PROBES = "/health/"
"""Below these probes ask each second."""
TOKEN_PATHS = frozenset({"/oauth2/token", "/api/v1/auth/token"})

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def dialect_of(path: str) -> Dialect:
    return dialects.oauth if path.startswith(OAUTH_PREFIXES) else dialects.api


def build(
    backend: Backend,
    *,
    ready: Ready,
    trusted_proxies: tuple[Network, ...],
    logger: Logger | None = None,
    token_refused: Counter = uncounted,
    traces: Traces | None = None,
) -> Gateway:
    """The gateway in front of a backend. `ready` says whether tokens can be had; forwarding headers are believed from
    `trusted_proxies` only; `logger` gets a line for each request, standard error's by default; `token_refused`
    counts those at the token endpoints that no method was reached by; `traces` records them all, where they are on."""
    log = logger if logger is not None else configured("info")
    templates = rest.templates()

    def endpoint(path: str, handlers: dict[str, Handler]) -> Endpoint:
        return Endpoint(
            handlers,
            route=templates.get(path, path),
            dialect=dialect_of(path),
            trusted=trusted_proxies,
            logger=log,
            probed=path.startswith(PROBES),
            count=token_refused if path in TOKEN_PATHS else uncounted,
            traces=traces,
        )

    def nowhere(refusal: Refusal) -> dict[Dialect, Endpoint]:
        both = (dialects.oauth, dialects.api)
        return {
            each: Nowhere(refusal, dialect=each, trusted=trusted_proxies, logger=log, traces=traces) for each in both
        }

    routes = {**oauth_routes(backend), **public_routes(backend, ready), **rest.routes(backend)}
    endpoints = {path: endpoint(path, handlers) for path, handlers in routes.items()}
    return Gateway(endpoints, missing=nowhere(NO_SUCH_ROUTE), malformed=nowhere(MALFORMED_PATH), logger=log)


def oauth_routes(backend: Backend) -> dict[str, dict[str, Handler]]:
    return {
        "/oauth2/token": {"POST": oauth.token(backend, json_too=False)},
        "/api/v1/auth/token": {"POST": oauth.token(backend, json_too=True)},
        "/oauth2/introspect": {"POST": oauth.introspection(backend)},
        "/oauth2/revoke": {"POST": oauth.revocation(backend)},
    }


def public_routes(backend: Backend, ready: Ready) -> dict[str, dict[str, Handler]]:
    document = openapi.document()
    return {
        "/.well-known/jwks.json": {"GET": discovery.jwks(backend)},
        "/.well-known/oauth-authorization-server": {"GET": discovery.metadata(backend)},
        "/.well-known/revocations": {"GET": discovery.revocations(backend)},
        "/health/live": {"GET": health.live},
        "/health/ready": {"GET": health.readiness(ready)},
        "/openapi.json": {"GET": openapi.handler(document)},
        "/docs": {"GET": docs.handler(document)},
    }


class Gateway:
    """The ASGI application; `refuse` is for what is wrong before a request is whole."""

    def __init__(
        self,
        endpoints: dict[str, Endpoint],
        *,
        missing: dict[Dialect, Endpoint],
        malformed: dict[Dialect, Endpoint],
        logger: Logger,
    ) -> None:
        self._logger = logger
        self._missing = missing
        self._malformed = malformed
        self._fixed = {path: endpoint for path, endpoint in endpoints.items() if "{" not in path}
        routes = [Route(path, endpoint) for path, endpoint in endpoints.items() if path not in self._fixed]
        self._router = Router(routes, redirect_slashes=False, default=self._not_found)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if CONTROL.search(scope["path"]) or (b"%" in scope["raw_path"] and not well_formed(scope["raw_path"])):
            await self._malformed[dialect_of(scope["path"])](scope, receive, send)
            return
        await self._fixed.get(scope["path"], self._router)(scope, receive, send)

    async def _not_found(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._missing[dialect_of(scope["path"])](scope, receive, send)

    def refuse(self, path: str, refusal: Refusal, peer: str) -> Answer:
        """A refusal in the dialect of a path, for a request that never became one; and its line, without more than the
        connection tells: what it says of itself can't be read."""
        call, end = Call(method="", source=source_address(peer, (), ()), door=HTTP), End(refusal.code, refusal.reason)
        tell(self._logger, call, end, 0.0, http_method=OTHER, route=OTHER, status=refusal.status)
        return dialect_of(path)(refusal, False)


def well_formed(raw_path: bytes) -> bool:
    """Whether a path's escapes are whole and mean UTF-8 (RFC 3986 §2.1, §2.5)."""
    if BROKEN_ESCAPE.search(raw_path):
        return False
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return False
    return True
