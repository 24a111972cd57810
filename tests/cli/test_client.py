"""The Python client, which the commands stand on, against a real service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import jwt
import pytest
import pytest_asyncio
from artstore.identity import (
    AdminClient,
    InvalidClient,
    InvalidRequest,
    InvalidScope,
    InvalidTarget,
    NotFound,
    PermissionDenied,
    Role,
    ServiceAccount,
    get_token,
)
from google.protobuf.json_format import MessageToDict


def client_of(administrator: dict[str, str], **account: str) -> AdminClient:
    options: dict[str, Any] = {
        "client_id": administrator["ARTSTORE_CLIENT_ID"],
        "client_secret": administrator["ARTSTORE_CLIENT_SECRET"],
    }
    return AdminClient(administrator["ARTSTORE_TARGET"], **(options | account))


@pytest_asyncio.fixture
async def client(administrator: dict[str, str]) -> AsyncIterator[AdminClient]:
    """A client that is the first administrator."""
    async with client_of(administrator) as opened:
        yield opened


async def test_a_token_is_verified_by_others(client: AdminClient) -> None:
    """PyJWT verifies a token with what the client says of keys and issuer."""
    token = (await client.issue_token(scope="storage.read")).access_token
    keys = jwt.PyJWKSet.from_dict(MessageToDict(await client.json_web_key_set()))
    issuer = (await client.server_metadata()).issuer
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, algorithms=["RS256"], audience="artstore", issuer=issuer)
    assert claims["scope"] == "storage.read"


async def test_introspect_and_revoke(client: AdminClient) -> None:
    """A token is active until it is revoked; revoking it again, or nonsense, is a success."""
    token = (await client.issue_token()).access_token
    assert (await client.introspect(token)).client_id == client.client_id
    for doomed in (token, token, "nonsense"):
        await client.revoke(doomed)
    assert not (await client.introspect(token)).active
    assert not (await client.introspect("nonsense")).active


async def test_errors_are_classes(client: AdminClient, administrator: dict[str, str]) -> None:
    """Each refusal is the class that its caller acts on."""
    with pytest.raises(InvalidScope):
        await client.issue_token(scope="storage.everything")
    with pytest.raises(InvalidTarget):
        await client.issue_token(audience=["elsewhere"])
    with pytest.raises(NotFound):
        await client.get_service_account(str(uuid4()))
    with pytest.raises(InvalidRequest) as caught:
        await client.create_service_account(ServiceAccount(name="x", role=Role.ROLE_USER))
    assert caught.value.violations[0].field.endswith("name")
    async with client_of(administrator, client_secret="wrong") as stranger:
        with pytest.raises(InvalidClient) as denied:
            await stranger.issue_token()
    assert denied.value.denial_id


async def test_life_of_an_account(client: AdminClient, administrator: dict[str, str]) -> None:
    """An account is created, is not allowed to manage others, and is gone from the list once deleted."""
    name = f"life-{uuid4().hex[:8]}"
    made = await client.create_service_account(ServiceAccount(name=name, role=Role.ROLE_USER))
    account = {"client_id": made.service_account.client_id, "client_secret": made.client_secret}
    async with client_of(administrator, **account) as service:
        assert (await service.issue_token()).access_token
        with pytest.raises(PermissionDenied):
            await service.get_service_account(made.service_account.id)
    query = f'name = "{name}"'
    assert [found.id async for found in client.list_service_accounts(filter=query)] == [made.service_account.id]
    await client.delete_service_account(made.service_account.id, etag=made.service_account.etag)
    assert [found async for found in client.list_service_accounts(filter=query)] == []


async def test_get_token(administrator: dict[str, str]) -> None:
    """A program without asyncio gets a token by one call."""
    arguments = [administrator[f"ARTSTORE_{name}"] for name in ("TARGET", "CLIENT_ID", "CLIENT_SECRET")]
    assert (await asyncio.to_thread(get_token, *arguments)).count(".") == 2
