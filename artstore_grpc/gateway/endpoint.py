"""An address of the gateway as an ASGI application: methods, the last word on every error, and the request's line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from artstore_grpc.addresses import Network
from artstore_grpc.errors import IdentityError, Internal, Unavailable
from artstore_grpc.gateway.answers import NO_STORE, Answer, Refusal, Refused, not_allowed, refusal_of
from artstore_grpc.gateway.dialects import Dialect
from artstore_grpc.gateway.exchange import ClientGone, Exchange
from artstore_grpc.telemetry.lines import CLIENT_GONE, SUCCESS, End, end_of, tell
from artstore_grpc.telemetry.logs import Logger

if TYPE_CHECKING:  # OpenTelemetry is imported only where traces are on
    from artstore_grpc.telemetry.traces import Traces

Handler = Callable[[Exchange], Awaitable[Answer]]
Counter = Callable[[str, str], None]
"""Counts a request that no method was reached by: OAuth's code of the refusal, and the `Authorization` that it had."""


def uncounted(outcome: str, authorization: str) -> None:
    """For endpoints whose requests are nobody's to count."""


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""In the log: a method that no path takes, whatever it is called; and the route of what is at no path of ours, since a
path may hold anything, a secret put there by mistake above all."""

UNREADY = End("UNAVAILABLE", "UNREADY")
"""A probe's answer that is a failure without anything having failed."""
LINGERING = frozenset({408, 413})
"""Statuses that are answered before the request was whole."""
REFUSED = "artstore.refused"
"""In the scope of a request that protocol.py has refused, told of and answered while its body was being read."""


class Endpoint:
    """The handlers of one path by HTTP method. `GET` serves `HEAD` too, `OPTIONS` lists what there is (RFC 9110 §9.3);
    everything that goes wrong is said in the endpoint's dialect. `route` is the path as the log has it; what is
    `probed` each second is told at `debug` only."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        route: str,
        dialect: Dialect,
        trusted: tuple[Network, ...],
        logger: Logger,
        probed: bool = False,
        count: Counter = uncounted,
        traces: Traces | None = None,
    ) -> None:
        self._count = count
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]
        self._allow = ", ".join(sorted({*self._handlers, "OPTIONS"}))
        self._route = route
        self._level = "debug" if probed else ""
        self._dialect = dialect
        self._trusted = trusted
        self._logger = logger
        self._traces = None if probed else traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._trusted)
        if self._traces is None:
            await self._serve(exchange)
            return
        with self._traces.request(exchange.call, method_of(exchange), self._route) as span:
            status = await self._serve(exchange)
            if span is not None:
                span.answered(status)

    async def _serve(self, exchange: Exchange) -> int | None:
        """Answers, and returns the status; None where nobody was there to get it."""
        started = time.perf_counter()
        answer, end = await self._answer(exchange)
        self._tell(exchange, answer, end, time.perf_counter() - started)
        if answer is not None:
            with answer.place:
                await exchange.answer(answer, linger=answer.status in LINGERING)
        return answer.status if answer is not None else None

    async def _answer(self, exchange: Exchange) -> tuple[Answer | None, End]:
        """The answer, None where nobody is there to get one, and how it came to it."""
        try:
            answer = await self._handled(exchange)
            return answer, SUCCESS if answer.status < 400 else UNREADY
        except ClientGone:
            return None, CLIENT_GONE
        except Refused as refused:
            refusal = refused.refusal
            return self._refused(exchange, refusal), End(refusal.code, refusal.reason)
        except IdentityError as error:
            failed = error
        except asyncio.CancelledError:  # the server stops, and its grace is over
            failed = Unavailable(reason="SHUTTING_DOWN")
        except Exception:
            self._logger.exception("http request failed unexpectedly", request_id=exchange.call.request_id)
            failed = Internal()
        return self._refused(exchange, refusal_of(failed)), end_of(failed)

    def _tell(self, exchange: Exchange, answer: Answer | None, end: End, seconds: float) -> None:
        """The request's line, with what the pipeline knows of the call that it became. Before the answer goes out: who
        has that finds the line."""
        if exchange.scope.get(REFUSED):
            return  # protocol.py has told what became of it
        told: dict[str, Any] = {"http_method": method_of(exchange), "route": self._route}
        if answer is not None:
            told["status"] = answer.status
        tell(self._logger, exchange.call, end, seconds, level=self._level, **told)

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
        if not exchange.call.method:
            self._count(refusal.oauth, exchange.text(b"authorization"))
        return self._dialect(refusal, b"authorization" in exchange.headers)


def method_of(exchange: Exchange) -> str:
    """For the log and traces, which have no room for whatever a caller may call one."""
    method: str = exchange.scope["method"]
    return method if method in METHODS else OTHER


class Nowhere(Endpoint):
    """Every path that has no endpoint, in one dialect: each method gets the same refusal."""

    def __init__(
        self,
        refusal: Refusal,
        *,
        dialect: Dialect,
        trusted: tuple[Network, ...],
        logger: Logger,
        traces: Traces | None = None,
    ) -> None:
        super().__init__({}, route=OTHER, dialect=dialect, trusted=trusted, logger=logger, traces=traces)
        self._refusal = refusal

    def _handler(self, method: str) -> Handler:
        raise Refused(self._refusal)
