"""IntrospectToken and RevokeToken over every door (RFC 7662, RFC 7009): who sees and ends whose tokens."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb

from tests.api.callers import Api
from tests.api.conftest import ISSUER, QUICK, administrator, first_account
from tests.api.doors import GrpcDoor, HttpDoor, refused
from tests.api.forgery import parts, resigned
from tests.installation import Account, Installation

INACTIVE = pb.IntrospectTokenResponse(active=False)
"""Exactly this, and not a word more (RFC 7662 §2.2)."""

NO_TOKENS = ("garbage", "a.b.c", "..", "ünïcode", "x" * 20_000, "eyJhbGciOiJub25lIn0.e30.")


def test_its_own_token(admin: Api) -> None:
    """What a live token says, in RFC 7662 §2.2's names."""
    account = admin.account("readonly", rate_limit=77)
    token = admin.token(account)
    found = admin.introspect(account, token)
    claims = parts(token)[1]
    assert found.active
    assert (found.token_type, list(found.aud)) == ("Bearer", ["artstore"])
    assert found.role == accounts_pb.ROLE_READONLY
    for name in ("scope", "client_id", "exp", "iat", "nbf", "sub", "iss", "jti", "name", "rate_limit"):
        assert getattr(found, name) == claims[name], name


def test_another_accounts_token(admin: Api) -> None:
    """Is inactive to everybody it is no business of: there is nothing to tell it from garbage by."""
    token = admin.token(admin.account())
    for role in ("user", "readonly", "auditor"):
        other = admin.account(role)
        assert admin.introspect(other, token) == INACTIVE == admin.introspect(other, "garbage")


def test_inactive_over_http_is_nothing_else(service: Installation) -> None:
    """The body is `{"active":false}` to the byte."""
    other = service.account()
    token = service.token(service.administrator.client_id, service.administrator.client_secret)
    door = HttpDoor(service.url)
    request = pb.IntrospectTokenRequest(token=token, client_id=other.client_id, client_secret=other.secret)
    assert door.send("IntrospectToken", request).content == b'{"active":false}'
    door.close()


def test_an_administrator_sees_any(admin: Api) -> None:
    """A token of any account and audience."""
    account = admin.account(audiences=["https://a.example"])
    assert admin.introspect(admin.account("admin"), admin.token(account)).client_id == account.client_id


def test_an_administrator_by_role_alone_sees_no_more(admin: Api) -> None:
    """Scopes decide, not roles: one that was narrowed to reading sees its own tokens alone."""
    narrow = admin.account("admin", scopes=["identity.accounts.read"])
    assert admin.introspect(narrow, admin.token(admin.account())) == INACTIVE


def test_a_resource_server_sees_what_is_for_it(admin: Api) -> None:
    """An account introspects the tokens whose audience it serves, one of several is enough, and no other."""
    server = admin.account("readonly", served_audiences=["https://a.example"], introspection_only=True)
    client = admin.account(audiences=["https://a.example", "https://b.example"])
    for audience, seen in (
        (("https://a.example",), True),
        (("https://b.example", "https://a.example"), True),
        (("https://b.example",), False),
    ):
        assert admin.introspect(server, admin.token(client, audience=audience)).active is seen


@pytest.mark.parametrize("token", NO_TOKENS, ids=lambda value: value[:12])
def test_what_is_no_token(admin: Api, token: str) -> None:
    """Is inactive, and to revoke it is a success (RFC 7009 §2.2)."""
    account = admin.account()
    assert admin.introspect(account, token) == INACTIVE
    admin.revoke(account, token)


def test_forged_and_cut_tokens(admin: Api) -> None:
    """A token that another key signed, a changed and a cut one are inactive to an administrator too."""
    account = admin.account("admin")
    token = admin.token(account)
    header, claims, signature = token.split(".")
    changed = resigned(token, scope="storage.write").split(".")[1]
    for wrong in (resigned(token), token[:-4], f"{header}.{changed}.{signature}", f"{header}.{claims}."):
        assert admin.introspect(account, wrong) == INACTIVE


def test_a_token_is_required(admin: Api) -> None:
    """None is malformed, whoever asks."""
    account = admin.account()
    for ask in (admin.introspect, admin.revoke):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
            ask(account, "")


def test_the_hint_changes_nothing(admin: Api) -> None:
    """RFC 7662 §2.1: a hint may be wrong, or unknown."""
    account = admin.account()
    for hint in ("access_token", "refresh_token", "nonsense"):
        request = pb.IntrospectTokenRequest(token=admin.token(account), token_type_hint=hint)
        assert admin.door.call("IntrospectToken", request, admin.basic(account).authorization).active


@pytest.mark.parametrize("verb", ["suspend", "delete"])
def test_tokens_of_accounts_that_are_shut_out(admin: Api, verb: str) -> None:
    """Inactive at once."""
    account = admin.account()
    token, observer = admin.token(account), admin.account("admin")
    assert admin.introspect(observer, token).active
    getattr(admin, verb)(account.id)
    assert admin.introspect(observer, token) == INACTIVE


def test_a_revoked_token(admin: Api) -> None:
    """By its own account: dead at once, while the account's other tokens live on; twice is a success."""
    account = admin.account("admin")
    token, other = (admin.token(account, audience=(admin.issuer,)) for _ in range(2))
    bearer = Api(admin.door, admin.issuer, f"Bearer {token}")
    assert bearer.get(account.id).id == account.id
    for _ in range(2):
        admin.revoke(account, token)
        assert admin.introspect(account, token) == INACTIVE
        with refused("UNAUTHENTICATED", "INVALID_TOKEN"):
            bearer.get(account.id)
    assert admin.introspect(account, other).active


def test_an_administrator_revokes_any(admin: Api) -> None:
    """Any account's token."""
    account = admin.account()
    token = admin.token(account)
    admin.revoke(admin.account("admin"), token)
    assert admin.introspect(account, token) == INACTIVE


def test_nobody_else_revokes_it(admin: Api) -> None:
    """Another account's live token is refused (RFC 7009 §2.1), and lives on; serving its audience is not enough."""
    account = admin.account()
    token = admin.token(account)
    for other in (admin.account(), admin.account("auditor"), admin.account(served_audiences=["artstore"])):
        with refused("PERMISSION_DENIED", "NOT_YOUR_TOKEN"):
            admin.revoke(other, token)
    assert admin.introspect(account, token).active


def test_revoking_needs_the_account(admin: Api) -> None:
    """To hold a token is not enough to end it, nor to look at it."""
    account = admin.account()
    token = admin.token(account)
    for method in ("IntrospectToken", "RevokeToken"):
        request = getattr(pb, f"{method}Request")(token=token)
        for authorization in ("", f"Bearer {token}"):
            with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
                admin.door.call(method, request, authorization)
    assert admin.introspect(account, token).active


def test_a_token_expires(alone: Installation, root: Api) -> None:
    """Active to its last second, then inactive, refused, and a success to revoke."""
    account = root.account("admin")
    token = root.token(account, audience=(ISSUER,))
    alone.clock.advance(timedelta(minutes=29, seconds=30))
    assert root.introspect(account, token).active
    alone.clock.advance(timedelta(seconds=31))
    assert root.introspect(account, token) == INACTIVE
    with refused("UNAUTHENTICATED", "INVALID_TOKEN"):
        Api(root.door, ISSUER, f"Bearer {token}").get(account.id)
    root.revoke(account, token)


def test_a_revocation_survives_a_restart(tmp_path: Path) -> None:
    """It is durable; and so are accounts, secrets and the key: other tokens are still verified."""
    settings = {"issuer": ISSUER, **QUICK}
    with Installation(tmp_path / "data", **settings) as service:
        door = GrpcDoor(str(service.started.grpc_address))
        account = administrator(service, door).account()
        api, known = Api(door, ISSUER), first_account(service)
        revoked, live = api.token(account), api.token(account)
        api.revoke(account, revoked)
        door.close()
    with Installation(tmp_path / "data", **settings) as service:
        door = GrpcDoor(str(service.started.grpc_address))
        api = Api(door, ISSUER)
        assert_alike(api, account, known, revoked, live)
        door.close()


def assert_alike(api: Api, account: Account, administrator: Account, revoked: str, live: str) -> None:
    """The account and the administrator see one token inactive, the other active."""
    for observer in (account, administrator):
        assert api.introspect(observer, revoked) == INACTIVE
        assert api.introspect(observer, live).active
