"""The clients of the ArtStore identity service, for asyncio: every service's, and an administrator's; and one function
for a program without it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from artstore.identity.assertions import KeyText
from artstore.identity.audit import AuditMethods
from artstore.identity.connection import DEFAULT_TIMEOUT
from artstore.identity.keys import KeyMethods
from artstore.identity.rotations import RotationMethods
from artstore.identity.tokens import TokenMethods


class Client(TokenMethods):
    """A connection to the service, as one account: TokenService, method by method; each raises IdentityError.

    async with Client("127.0.0.1:50051", client_id=…, client_secret=…) as client:
        token = (await client.issue_token()).access_token
    """


class AdminClient(Client, KeyMethods, AuditMethods, RotationMethods):
    """A client that administers too: ServiceAccountService, KeyService and AuditService, with pages as iterators.

    It gets the access token for that itself, and keeps it for most of its life.

    async with AdminClient("127.0.0.1:50051", client_id=…, client_secret=…) as admin:
        async for account in admin.list_service_accounts(filter="role = user"):
            …
    """


def get_token(
    target: str,
    client_id: str,
    client_secret: str = "",
    *,
    private_key: KeyText | None = None,
    issuer: str | None = None,
    scope: str = "",
    audience: Iterable[str] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> str:
    """Gets one access token and closes the connection; for programs that run no event loop. As `Client.issue_token`;
    `private_key` and `issuer` as `Client` has them."""

    async def get() -> str:
        account: dict[str, Any] = {"client_id": client_id, "client_secret": client_secret, "issuer": issuer}
        async with Client(target, **account, private_key=private_key, timeout=timeout) as client:
            return (await client.issue_token(scope=scope, audience=audience)).access_token

    return asyncio.run(get())
