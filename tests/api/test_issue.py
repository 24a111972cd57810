"""IssueToken over every door: the grant, scopes, audiences, claims (RFC 6749 §4.4, RFC 8707, RFC 9068)."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc.model import SCOPES
from tests.api.callers import GRANT, Api, basic
from tests.api.doors import refused
from tests.api.forgery import parts
from tests.installation import Installation


def test_the_answer(admin: Api) -> None:
    """RFC 6749 §5.1: a Bearer token, its lifetime and scope; when it was issued, when the secret expires."""
    account = admin.account()
    issued = admin.issue(account)
    assert (issued.token_type, issued.expires_in, issued.scope) == ("Bearer", 1800, "storage.read storage.write")
    assert abs(issued.issue_time.seconds - time.time()) < 30
    assert issued.issue_time.nanos == 0
    assert issued.secret_expire_time == account.message.secret_expire_time


def test_the_claims(admin: Api) -> None:
    """Exactly those of RFC 9068 §2.2 and ArtStore's own, under `typ: at+jwt`, and no more."""
    account = admin.account("readonly", rate_limit=77)
    issued = admin.issue(account)
    header, claims = parts(issued.access_token)
    assert header == {"typ": "at+jwt", "alg": "RS256", "kid": admin.keys()[0]["kid"]}
    assert re.fullmatch(r"[0-9a-f]{32}", claims.pop("jti"))
    assert claims == {
        "iss": admin.issuer,
        "sub": account.id,
        "aud": "artstore",
        "client_id": account.client_id,
        "scope": "storage.read",
        "role": "readonly",
        "name": account.message.name,
        "rate_limit": 77,
        "epoch": 0,
        "iat": issued.issue_time.seconds,
        "nbf": issued.issue_time.seconds,
        "exp": issued.issue_time.seconds + 1800,
    }


def test_every_token_is_another(admin: Api) -> None:
    """Two tokens of one second differ by their `jti`."""
    account = admin.account()
    assert len({parts(admin.token(account))[1]["jti"] for _ in range(5)}) == 5


def test_a_standard_library_verifies_it(admin: Api, service: Installation) -> None:
    """PyJWT, by the key set as this door publishes it, and by the one at `jwks_uri`."""
    token = admin.token(admin.account())
    metadata = admin.door.call("GetServerMetadata", pb.GetServerMetadataRequest())
    assert metadata.issuer == admin.issuer
    published = httpx.get(metadata.jwks_uri, trust_env=False).json()
    for keys in ({"keys": admin.keys()}, published):
        (key,) = [key for key in jwt.PyJWKSet.from_dict(keys).keys if key.key_id == parts(token)[0]["kid"]]
        options: Any = {"require": ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"]}
        verified = jwt.decode(
            token, key, algorithms=["RS256"], audience="artstore", issuer=admin.issuer, options=options
        )
        assert verified["scope"] == "storage.read storage.write"


def test_the_published_key_is_public(admin: Api) -> None:
    """RFC 7517 §4: RSA signing keys of 2048 bits or more with their algorithm, and nothing private."""
    published = admin.keys()
    for key in published:
        assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}
        assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")
        assert len(key["n"]) >= 342


def test_the_fields_authenticate_too(admin: Api) -> None:
    """`client_secret_post` (RFC 6749 §2.3.1)."""
    account = admin.account()
    request = pb.IssueTokenRequest(grant_type=GRANT, client_id=account.client_id, client_secret=account.secret)
    assert admin.door.call("IssueToken", request).access_token


def test_two_authentications_are_refused(admin: Api) -> None:
    """RFC 6749 §2.3: not more than one in a request, though both are right; a lone equal client_id is none."""
    account, other = admin.account(), admin.account()
    authorization = basic(account.client_id, account.secret)
    for client_id, secret in ((account.client_id, account.secret), (other.client_id, ""), ("", account.secret)):
        request = pb.IssueTokenRequest(grant_type=GRANT, client_id=client_id, client_secret=secret)
        with refused("INVALID_ARGUMENT", "TWO_CLIENT_AUTHENTICATIONS"):
            admin.door.call("IssueToken", request, authorization)
    request = pb.IssueTokenRequest(grant_type=GRANT, client_id=account.client_id)
    assert admin.door.call("IssueToken", request, authorization).access_token


def test_grants(admin: Api) -> None:
    """None is malformed, another is unsupported, and both are said before anybody is authenticated."""
    for api in (admin.basic(admin.account()), Api(admin.door, admin.issuer)):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST"):
            api.issue(grant="")
        for grant in ("password", "authorization_code", "refresh_token", "CLIENT_CREDENTIALS"):
            with refused("UNIMPLEMENTED", "UNSUPPORTED_GRANT_TYPE"):
                api.issue(grant=grant)


def test_scopes_asked(admin: Api) -> None:
    """A subset of the account's, in the one order, once each; none asked is all."""
    account = admin.account("admin")
    cases = {
        "": " ".join(SCOPES),
        "storage.write": "storage.write",
        "identity.audit.read storage.read": "storage.read identity.audit.read",
        "storage.read storage.read": "storage.read",
    }
    for asked, granted in cases.items():
        issued = admin.issue(account, scope=asked)
        assert (issued.scope, parts(issued.access_token)[1]["scope"]) == (granted, granted)


@pytest.mark.parametrize(
    "scope",
    [
        "storage.none",
        "storage.read nope",
        "identity.accounts.read",
        "storage.read  storage.write",
        "storage.read\tstorage.write",
        " storage.read",
        "storage.read ",
        '"',
        "back\\slash",
        "ünïcode",
        "*",
    ],
)
def test_scopes_refused(admin: Api, scope: str) -> None:
    """What the account lacks, what nobody has, and what RFC 6749 §3.3 doesn't allow to be written."""
    with refused("INVALID_ARGUMENT", "INVALID_SCOPE"):
        admin.issue(admin.account(), scope=scope)


def test_a_narrowed_account(admin: Api) -> None:
    """Its own scopes bound its tokens, not its role's."""
    account = admin.account("user", scopes=["storage.read"])
    assert admin.issue(account).scope == "storage.read"
    with refused("INVALID_ARGUMENT", "INVALID_SCOPE"):
        admin.issue(account, scope="storage.write")


def test_audiences_asked(admin: Api) -> None:
    """One is a string, several are a list in the order asked, once each; none asked is the default one."""
    account = admin.account(audiences=["https://a.example", "artstore", "b"])
    cases: list[tuple[tuple[str, ...], Any]] = [
        ((), "artstore"),
        (("b",), "b"),
        (("b", "https://a.example"), ["b", "https://a.example"]),
        (("b", "b"), "b"),
    ]
    for asked, granted in cases:
        assert parts(admin.token(account, audience=asked))[1]["aud"] == granted


def test_an_account_without_the_default_audience(admin: Api) -> None:
    """Gets its first one when it asks for none."""
    account = admin.account(audiences=["https://b.example", "https://a.example"])
    assert parts(admin.token(account))[1]["aud"] == "https://b.example"


@pytest.mark.parametrize("role", ["user", "readonly", "auditor", "admin"])
def test_the_issuer_as_audience(admin: Api, role: str) -> None:
    """Administrators and auditors may ask for it; it is never what they get unasked."""
    account = admin.account(role)
    assert parts(admin.token(account))[1]["aud"] == "artstore"
    if role in ("admin", "auditor"):
        assert parts(admin.token(account, audience=(admin.issuer,)))[1]["aud"] == admin.issuer
    else:
        with refused("INVALID_ARGUMENT", "INVALID_TARGET"):
            admin.token(account, audience=(admin.issuer,))


@pytest.mark.parametrize(
    "audience", [("nope",), ("artstore", "nope"), ("ARTSTORE",), ("artstore ",), ("artstore",) * 21]
)
def test_audiences_refused(admin: Api, audience: tuple[str, ...]) -> None:
    """One that the account may not ask for spoils the whole request, and so do too many."""
    with refused("INVALID_ARGUMENT", "INVALID_TARGET"):
        admin.issue(admin.account(), audience=audience)


def test_an_account_that_only_introspects(admin: Api) -> None:
    """Gets no token (`unauthorized_client`), and may introspect."""
    account = admin.account(introspection_only=True)
    with refused("PERMISSION_DENIED", "UNAUTHORIZED_CLIENT"):
        admin.issue(account)
    assert not admin.introspect(account, "no token").active


def test_the_lifetime_is_a_setting(fresh: Any) -> None:
    """`ARTSTORE_TOKEN_LIFETIME` decides `expires_in` and `exp`."""
    service = fresh(token_lifetime=timedelta(minutes=5))
    claims = parts(service.token(service.administrator.client_id, service.administrator.client_secret))[1]
    assert claims["exp"] - claims["iat"] == 300
