"""The client of the ArtStore identity service, for asyncio; and one function for a program without it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from artstore.identity.accounts import AccountMethods
from artstore.identity.connection import DEFAULT_TIMEOUT
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub


class Client(AccountMethods):
    """A connection to the service, as one account. Every method of the API is a method here; each raises IdentityError.

    async with Client("127.0.0.1:50051", client_id=…, client_secret=…) as client:
        token = (await client.issue_token()).access_token
    """

    async def check_health(self, service: str = "") -> bool:
        """Whether the server, or one of its services (`readiness`, `liveness`, a full service name), is serving.

        Raises NotFound for a service it doesn't know, Unavailable when nobody answers.
        """
        answer = await self._call(HealthStub(self._channel).Check, HealthCheckRequest(service=service))
        return bool(answer.status == HealthCheckResponse.SERVING)


def get_token(
    target: str,
    client_id: str,
    client_secret: str,
    *,
    scope: str = "",
    audience: Iterable[str] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> str:
    """Gets one access token and closes the connection; for programs that run no event loop. As `Client.issue_token`."""

    async def get() -> str:
        async with Client(target, client_id=client_id, client_secret=client_secret, timeout=timeout) as client:
            return (await client.issue_token(scope=scope, audience=audience)).access_token

    return asyncio.run(get())
