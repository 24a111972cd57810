"""The HTTP server: uvicorn with httptools, started and stopped by its owner rather than by signals."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import uvicorn

from artstore_grpc.gateway.protocol import Protocol
from artstore_grpc.settings import MAX_CONNECTIONS

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection is kept: longer than a balancer's usual 60, so that it is the balancer that closes."""
LAST_WORDS_SECONDS = 1.0
"""What a cancelled request has to say that the service is stopping."""


class Uvicorn(uvicorn.Server):
    """uvicorn without its hands on the process's signals: who owns the process decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Config(uvicorn.Config):
    """uvicorn's, with a context that its owner made (uvicorn itself would read the files once), and bounds of its
    connections that protocol.py holds them to."""

    def __init__(
        self, app: Any, *, context: ssl.SSLContext | None, max_connections: int, max_age_seconds: float, **settings: Any
    ) -> None:
        super().__init__(app, **settings)
        self.max_connections = max_connections
        self.max_age_seconds = max_age_seconds
        self._context = context

    def load(self) -> None:
        super().load()
        self.ssl = self._context


class GatewayServer:
    """Serves an application on a bound socket. `grace` is how long requests in flight may go on after `stop`."""

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        grace: timedelta,
        context: ssl.SSLContext | None = None,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_age: timedelta = timedelta(0),
    ) -> None:
        """`context` is for HTTPS; None is plain text. Past `max_connections` a new one is told so, and closed; one
        older than `max_age`, a tenth more or less, closes with its next answer, unless that is 0."""
        self._listener = listener
        self._server = Uvicorn(
            Config(
                app,
                http=Protocol,
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=math.ceil(grace.total_seconds()),
                context=context,
                max_connections=max_connections,
                max_age_seconds=max_age.total_seconds(),
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        port: int = self._listener.getsockname()[1]
        return port

    async def start(self) -> None:
        """Starts to accept connections; the first may come as soon as this returns."""
        self._task = asyncio.create_task(self._server.serve([self._listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the HTTP server ended before it started")
            await asyncio.sleep(0)

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Closes the listener and idle connections, lets requests in flight finish within the grace, cuts the rest.
        `grace_seconds`: another grace than usual."""
        if grace_seconds is not None:
            self._server.config.timeout_graceful_shutdown = math.ceil(grace_seconds)
        self._server.should_exit = True
        if self._task is not None:
            await self._task
            self._task = None
            await self._cut()
        self._listener.close()

    async def _cut(self) -> None:
        """Waits until the requests that uvicorn has cancelled are answered, then closes what is still open."""
        state = self._server.server_state
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=LAST_WORDS_SECONDS)
        for connection in list(state.connections):
            connection.transport.close()
