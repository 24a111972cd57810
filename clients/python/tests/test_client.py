"""The client has every method of the API, and sends what its caller gave."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import unquote_plus

import grpc
import pytest
from artstore.identity import (
    AdminClient,
    AlreadyExists,
    Credentials,
    ImportedServiceAccount,
    InvalidToken,
    PermissionDenied,
    Role,
    ServiceAccount,
    from_status,
    get_token,
)
from artstore.identity.channels import CHANNEL_OPTIONS
from artstore.identity.connection import basic_authorization
from artstore.identity.errors import DOMAIN
from artstore.identity.v1 import service_account_service_pb2 as accounts
from artstore.identity.v1 import token_service_pb2 as tokens
from canned import SERVICES, Canned, Refused
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

ISSUER = "https://identity.example"

SHORT = {
    "IntrospectToken": "introspect",
    "RevokeToken": "revoke",
    "GetJsonWebKeySet": "json_web_key_set",
    "GetServerMetadata": "server_metadata",
}
"""AdminClient methods that are not simply the RPC's name in snake_case."""

FROM_THE_CLIENT = {
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion_type",
    "client_assertion",
    "page_token",
}
"""Request fields that the client fills by itself."""


def client_method(rpc: str) -> Callable[..., Any]:
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in rpc).lstrip("_")
    method: Callable[..., Any] = getattr(AdminClient, SHORT.get(rpc, snake))
    return method


FOR_GATEWAYS = "GetRevocations"
METHODS = [method for service in SERVICES for method in service.methods if method.name != FOR_GATEWAYS]


@pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
def test_every_rpc_has_a_method_with_every_field(method: Any) -> None:
    """Each RPC is a method of the client, and each field of its request a parameter."""
    fields = {field.name for field in method.input_type.fields} - FROM_THE_CLIENT
    parameters = set(inspect.signature(client_method(method.name)).parameters) - {"self"}
    assert parameters == fields


def with_admin_tokens(server: Canned, expires_in: int = 1800) -> None:
    """Makes the server issue `token-1`, `token-2`, …"""
    server.answers["GetServerMetadata"] = lambda _: tokens.GetServerMetadataResponse(issuer=ISSUER)
    server.answers["IssueToken"] = lambda _: tokens.IssueTokenResponse(
        access_token=f"token-{len(server.named('IssueToken'))}", expires_in=expires_in
    )


def bearers(server: Canned, method: str) -> list[str]:
    return [metadata["authorization"] for _, metadata in server.named(method)]


async def test_issue_token(server: Canned, client: AdminClient) -> None:
    """A token is asked for with the account's credentials, the scope and every audience."""
    await client.issue_token(scope="storage.read storage.write", audience=["artstore", "other"])
    ((request, metadata),) = server.named("IssueToken")
    assert request == tokens.IssueTokenRequest(
        grant_type="client_credentials",
        client_id="sa_dev_test_00000000",
        client_secret="the-secret",
        scope="storage.read storage.write",
        audience=["artstore", "other"],
    )
    assert "authorization" not in metadata


async def test_introspect_and_revoke_authenticate(server: Canned, client: AdminClient) -> None:
    """Both send the token with the credentials of the account that asks."""
    await client.introspect("a-token")
    await client.revoke("a-token", token_type_hint="access_token")
    for method in ("IntrospectToken", "RevokeToken"):
        ((request, _),) = server.named(method)
        assert (request.token, request.client_id, request.client_secret) == (
            "a-token",
            "sa_dev_test_00000000",
            "the-secret",
        )


async def test_admin_token_is_got_once_for_the_issuer(server: Canned, client: AdminClient) -> None:
    """Account methods share one token, whose sole audience is the issuer that the server's metadata names."""
    with_admin_tokens(server)
    await client.get_service_account("a")
    await client.get_service_account("b")
    ((request, _),) = server.named("IssueToken")
    assert list(request.audience) == [ISSUER]
    assert len(server.named("GetServerMetadata")) == 1
    assert bearers(server, "GetServiceAccount") == ["Bearer token-1"] * 2


async def test_admin_token_is_renewed_before_it_expires(server: Canned, client: AdminClient) -> None:
    """A token whose life is over is not sent again."""
    with_admin_tokens(server, expires_in=0)
    await client.get_service_account("a")
    await client.get_service_account("b")
    assert bearers(server, "GetServiceAccount") == ["Bearer token-1", "Bearer token-2"]


async def test_refused_admin_token_is_replaced_once(server: Canned, client: AdminClient) -> None:
    """A kept token that the service refuses (revoked, another key) is replaced, and the call made again."""
    with_admin_tokens(server)
    await client.get_service_account("a")

    def refuse_the_first(_: object) -> accounts.GetServiceAccountResponse:
        if bearers(server, "GetServiceAccount")[-1] == "Bearer token-1":
            raise Refused(grpc.StatusCode.UNAUTHENTICATED, "No.", ErrorInfo(reason="INVALID_TOKEN", domain=DOMAIN))
        return accounts.GetServiceAccountResponse()

    server.answers["GetServiceAccount"] = refuse_the_first
    await client.get_service_account("b")
    assert bearers(server, "GetServiceAccount") == ["Bearer token-1", "Bearer token-1", "Bearer token-2"]


async def test_a_fresh_token_that_is_refused_is_an_error(server: Canned, client: AdminClient) -> None:
    """A service that refuses what it just issued is not asked for ever."""
    with_admin_tokens(server)

    def refuse(_: object) -> accounts.GetServiceAccountResponse:
        raise Refused(grpc.StatusCode.UNAUTHENTICATED, "No.", ErrorInfo(reason="INVALID_TOKEN", domain=DOMAIN))

    server.answers["GetServiceAccount"] = refuse
    with pytest.raises(InvalidToken):
        await client.get_service_account("a")
    assert len(server.named("GetServiceAccount")) == 1


async def test_an_account_without_the_issuer_audience_is_denied(server: Canned, client: AdminClient) -> None:
    """Where the account may not ask for the issuer's audience, the caller learns that it may not manage accounts."""
    with_admin_tokens(server)

    def refuse(_: object) -> tokens.IssueTokenResponse:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "No.", ErrorInfo(reason="INVALID_TARGET", domain=DOMAIN))

    server.answers["IssueToken"] = refuse
    with pytest.raises(PermissionDenied):
        await client.get_service_account("a")


async def test_list_follows_every_page(server: Canned, client: AdminClient) -> None:
    """Listing yields the accounts of all pages, with the same filter on each."""
    with_admin_tokens(server)
    server.answers["ListServiceAccounts"] = lambda request: accounts.ListServiceAccountsResponse(
        service_accounts=[ServiceAccount(name=f"after-{request.page_token}")],
        next_page_token={"": "p2", "p2": "p3"}.get(request.page_token, ""),
    )
    names = [account.name async for account in client.list_service_accounts(filter="role = user", page_size=1)]
    assert names == ["after-", "after-p2", "after-p3"]
    assert {(request.filter, request.page_size) for request, _ in server.named("ListServiceAccounts")} == {
        ("role = user", 1)
    }


async def test_create_sends_account_and_request_id(server: Canned, client: AdminClient) -> None:
    """Creating sends the account as given, and answers the secret."""
    with_admin_tokens(server)
    server.answers["CreateServiceAccount"] = lambda request: accounts.CreateServiceAccountResponse(
        service_account=request.service_account, client_secret="new"
    )
    answer = await client.create_service_account(
        ServiceAccount(name="ingest", role=Role.ROLE_USER), request_id="some-uuid"
    )
    assert (answer.service_account.name, answer.client_secret) == ("ingest", "new")
    assert server.named("CreateServiceAccount")[0][0].request_id == "some-uuid"


async def test_update_sends_the_mask(server: Canned, client: AdminClient) -> None:
    """Only the fields named are asked to change."""
    with_admin_tokens(server)
    await client.update_service_account(ServiceAccount(id="a", description=""), update_mask=["description"])
    assert list(server.named("UpdateServiceAccount")[0][0].update_mask.paths) == ["description"]


@pytest.mark.parametrize(
    ("verb", "rpc"),
    [
        ("delete_service_account", "DeleteServiceAccount"),
        ("undelete_service_account", "UndeleteServiceAccount"),
        ("suspend_service_account", "SuspendServiceAccount"),
        ("activate_service_account", "ActivateServiceAccount"),
    ],
)
async def test_verbs_send_id_and_etag(server: Canned, client: AdminClient, verb: str, rpc: str) -> None:
    """Each verb names the account and its etag."""
    with_admin_tokens(server)
    await getattr(client, verb)("a", etag="e")
    request = server.named(rpc)[0][0]
    assert (request.id, request.etag) == ("a", "e")


@pytest.mark.parametrize(
    ("overlap", "sent"),
    [(None, None), (timedelta(0), Duration()), (timedelta(hours=2), Duration(seconds=7200))],
)
async def test_rotate_overlap(
    server: Canned, client: AdminClient, overlap: timedelta | None, sent: Duration | None
) -> None:
    """No overlap given leaves it to the service; zero is sent as zero."""
    with_admin_tokens(server)
    await client.rotate_secret("a", overlap=overlap)
    request, metadata = server.named("RotateSecret")[0]
    assert request.HasField("overlap") == (sent is not None)
    assert sent is None or request.overlap == sent
    assert metadata["authorization"] == "Bearer token-1"


async def test_own_secret_is_rotated_with_the_secret(server: Canned, client: AdminClient) -> None:
    """An account rotates its own secret by Basic credentials, and the client goes on with the new one."""
    server.answers["RotateSecret"] = lambda _: accounts.RotateSecretResponse(client_secret="newer")
    await client.rotate_secret("sa_dev_test_00000000")
    ((_, metadata),) = server.named("RotateSecret")
    assert metadata["authorization"] == basic_authorization("sa_dev_test_00000000", "the-secret")
    await client.issue_token()
    assert server.named("IssueToken")[-1][0].client_secret == "newer"


async def test_revoke_secret(server: Canned, client: AdminClient) -> None:
    """Revoking names the account and the secret's id."""
    with_admin_tokens(server)
    await client.revoke_secret("a", "s1", etag="e")
    request = server.named("RevokeSecret")[0][0]
    assert (request.id, request.secret_id, request.etag) == ("a", "s1", "e")


@pytest.mark.parametrize("pair", [("id", "secret"), ("a b", "c+d%&:é"), ("colon:id", "")])
def test_basic_is_form_urlencoded(pair: tuple[str, str]) -> None:
    """RFC 6749 §2.3.1: id and secret are form-urlencoded before they are joined, so that a colon can't split them."""
    scheme, _, encoded = basic_authorization(*pair).partition(" ")
    client_id, _, client_secret = base64.b64decode(encoded).decode().partition(":")
    assert (scheme, unquote_plus(client_id), unquote_plus(client_secret)) == ("Basic", *pair)


def test_keepalive_is_no_flood() -> None:
    """Pings are no more frequent than once a minute: servers cut off clients that ping too often."""
    assert dict(CHANNEL_OPTIONS)["grpc.keepalive_time_ms"] >= 60_000


async def test_a_client_that_is_not_open_says_so() -> None:
    """Forgetting `async with` is told in a sentence."""
    with pytest.raises(RuntimeError, match="async with"):
        await AdminClient("127.0.0.1:1").server_metadata()


async def test_get_token_without_a_loop(server: Canned) -> None:
    """A program without asyncio gets a token by one function."""
    import asyncio

    server.answers["IssueToken"] = lambda request: tokens.IssueTokenResponse(access_token=f"for {request.client_id}")
    token = await asyncio.to_thread(get_token, server.target, "me", "secret", scope="storage.read")
    assert token == "for me"
    assert server.named("IssueToken")[0][0].scope == "storage.read"


async def test_imports_are_told_one_by_one(server: Canned, client: AdminClient) -> None:
    """The accounts go out as they were given; what became of each comes back, an error as a call of its own has it."""
    with_admin_tokens(server)
    status = Status(code=grpc.StatusCode.ALREADY_EXISTS.value[0], message="An account of this name exists.")
    status.details.add().Pack(ErrorInfo(reason="NAME_TAKEN", domain=DOMAIN))
    results = [accounts.ImportResult(outcome="IMPORT_OUTCOME_CREATED"), accounts.ImportResult(error=status)]
    server.answers["ImportServiceAccounts"] = lambda _: accounts.ImportServiceAccountsResponse(results=results)
    items = [ImportedServiceAccount(client_id="a"), ImportedServiceAccount(client_id="b")]
    assert await client.import_service_accounts(items, validate_only=True) == results
    ((request, _),) = server.named("ImportServiceAccounts")
    assert request == accounts.ImportServiceAccountsRequest(service_accounts=items, validate_only=True)
    error = from_status(results[1].error)
    assert (type(error), error.reason, error.code) == (AlreadyExists, "NAME_TAKEN", grpc.StatusCode.ALREADY_EXISTS)
    assert str(error) == "An account of this name exists."
    assert from_status(Status(code=99)).code is grpc.StatusCode.UNKNOWN


class Rotating:
    """Credentials whose secret is another one each time."""

    def __init__(self) -> None:
        self.asked = 0

    def current(self) -> Credentials:
        self.asked += 1
        return Credentials("sa_dev_test_00000000", f"secret-{self.asked}")


async def test_a_secret_that_rotates(server: Canned) -> None:
    """With a provider each call has the secret of then; beside other credentials it is refused."""
    async with AdminClient(server.target, credentials=Rotating()) as client:
        await client.issue_token()
        await client.introspect("token")
    (issued, _), (asked, _) = server.named("IssueToken")[0], server.named("IntrospectToken")[0]
    assert (issued.client_id, issued.client_secret) == ("sa_dev_test_00000000", "secret-1")
    assert asked.client_secret == "secret-2"
    with pytest.raises(ValueError, match="give credentials, or"):
        AdminClient(server.target, credentials=Rotating(), client_id="x")
