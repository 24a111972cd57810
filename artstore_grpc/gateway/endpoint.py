"""An address of the gateway as an ASGI application: methods, and the last word on every error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from artstore_grpc.addresses import Network
from artstore_grpc.errors import IdentityError, Internal, Unavailable
from artstore_grpc.gateway.answers import NO_STORE, Answer, Refusal, Refused, not_allowed, refusal_of
from artstore_grpc.gateway.dialects import Dialect
from artstore_grpc.gateway.exchange import ClientGone, Exchange

Handler = Callable[[Exchange], Awaitable[Answer]]

MAX_LOGGED_PATH = 200
MAX_LOGGED_SEGMENT = 40
"""An account's id has 36 characters, a client_id hardly more; a secret has 68."""


class Endpoint:
    """The handlers of one path by HTTP method. `GET` serves `HEAD` too, `OPTIONS` lists what there is (RFC 9110 §9.3);
    everything that goes wrong is said in the endpoint's dialect."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        dialect: Dialect,
        trusted: tuple[Network, ...],
        logger: FilteringBoundLogger,
    ) -> None:
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join(sorted({*self._handlers, "OPTIONS"}))
        self._dialect = dialect
        self._trusted = trusted
        self._logger = logger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._trusted)
        linger = False
        try:
            answer = await self._handled(exchange)
        except ClientGone:
            return
        except Refused as refused:
            answer = self._refused(exchange, refused.refusal)
            linger = refused.refusal.status in (408, 413)
        except IdentityError as error:
            answer = self._refused(exchange, refusal_of(error))
        except asyncio.CancelledError:  # the server stops, and its grace is over
            answer = self._refused(exchange, refusal_of(Unavailable(reason="SHUTTING_DOWN")))
        except Exception:
            self._logger.exception("http request failed unexpectedly", request_id=exchange.call.request_id)
            answer = self._refused(exchange, refusal_of(Internal()))
        with answer.place:
            await exchange.answer(answer, linger=linger)

    async def _handled(self, exchange: Exchange) -> Answer:
        await exchange.read()
        return await self._handler(exchange.scope["method"])(exchange)

    def _handler(self, method: str) -> Handler:
        handler = self._handlers.get(method)
        if handler is not None:
            return handler
        if method == "OPTIONS":
            return self._options
        raise Refused(not_allowed(self._allow))

    async def _options(self, exchange: Exchange) -> Answer:
        return Answer(204, (*NO_STORE, (b"pragma", b"no-cache"), (b"allow", self._allow.encode())), b"")

    def _refused(self, exchange: Exchange, refusal: Refusal) -> Answer:
        """The answer to a refusal. One that no method logged, because none was reached, is logged here."""
        if not exchange.call.method:
            self._logger.info(
                "http request refused",
                path=loggable(exchange.scope["path"]),
                status=refusal.status,
                reason=refusal.reason,
                source=exchange.call.source,
                request_id=exchange.call.request_id,
            )
        return self._dialect(refusal, b"authorization" in exchange.headers)


def loggable(path: str) -> str:
    """A path for the log: a segment long enough for a secret or a token, put there by mistake, is left out."""
    segments = path[:MAX_LOGGED_PATH].split("/")
    return "/".join(segment if len(segment) <= MAX_LOGGED_SEGMENT else "…" for segment in segments)


class Nowhere(Endpoint):
    """Every path that has no endpoint, in one dialect: each method gets the same refusal."""

    def __init__(
        self, refusal: Refusal, *, dialect: Dialect, trusted: tuple[Network, ...], logger: FilteringBoundLogger
    ) -> None:
        super().__init__({}, dialect=dialect, trusted=trusted, logger=logger)
        self._refusal = refusal

    def _handler(self, method: str) -> Handler:
        raise Refused(self._refusal)
