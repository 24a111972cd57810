"""`grpc.health.v1` for Kubernetes' probes: what is asked for, and what it follows.

`""` and `liveness`: the process is alive, whatever it depends on. `readiness` and TokenService: tokens can be issued,
also while the database is down, until the outage window ends. The other services: the database is up.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from grpc_health.v1 import health, health_pb2

LIVENESS = ("", "liveness")
READINESS = "readiness"
TOKEN_SERVICE = "artstore.identity.v1.TokenService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health.aio.HealthServicer):  # type: ignore[misc]
    """The standard servicer, with watches that end at shutdown so that draining is not held up."""

    def __init__(self, services: tuple[str, ...]) -> None:
        super().__init__()
        self._by_database = tuple(service for service in services if service != TOKEN_SERVICE)
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()
        self.draining = False

    @property
    def ready(self) -> bool:
        return bool(self._server_status.get(READINESS) == SERVING)

    async def follow(self, *, serving: bool, database: bool) -> None:
        """Sets every state: `serving`, tokens can be issued; `database`, so can everything else."""
        for name in LIVENESS:
            await self.set(name, SERVING)
        for name in (READINESS, TOKEN_SERVICE):
            await self.set(name, SERVING if serving and not self.draining else NOT_SERVING)
        for name in self._by_database:
            await self.set(name, SERVING if database and not self.draining else NOT_SERVING)

    async def changed(self) -> None:
        """Returns when a state is set the next time."""
        await self._changed.wait()

    async def drain(self) -> None:
        """Turns unready; liveness stays, or Kubernetes would kill what is only finishing its work."""
        self.draining = True
        await self.follow(serving=False, database=False)

    async def set(self, service: str, status: Any) -> None:
        """Sets a service's state, and wakes the watches of them all."""
        await super().set(service, status)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def List(self, request: Any, context: Any) -> Any:
        """Every state there is; the library's servicer lacks it."""
        statuses = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._server_status.items()}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: Any, context: Any) -> None:
        """As the standard has it, until `end_watches`."""
        stream = asyncio.create_task(self._watch(request.service, context))
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait((stream, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            stream.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stream

    async def _watch(self, service: str, context: Any) -> None:
        """Written anew because the library's holds a lock while it writes: a client that doesn't read would keep every
        state as it was, and the service from stopping."""
        told = None
        while True:
            changed = self._changed  # before the state is read, so that no change is missed
            status = self._server_status.get(service, SERVICE_UNKNOWN)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await changed.wait()

    def end_watches(self) -> None:
        """Ends every watch, now and later: an open one would make the server burn its whole grace."""
        self._ended.set()
