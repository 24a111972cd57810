"""The contract: the key set and the metadata, and what a new signing key means for tokens."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb

from tests.api.callers import Api
from tests.api.conftest import administrator as administrating
from tests.api.conftest import first_account
from tests.api.doors import refused
from tests.api.forgery import parts
from tests.api.test_introspection import INACTIVE
from tests.contract.stands import Stand, administrator


def verified(api: Api, token: str) -> dict[str, Any]:
    """The claims, by a verifier that others wrote and the key set as it is now."""
    kid = parts(token)[0]["kid"]
    (key,) = [key for key in jwt.PyJWKSet.from_dict({"keys": api.keys()}).keys if key.key_id == kid]
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        audience="artstore",
        issuer=api.issuer,
        options={"verify_iat": False},
        leeway=900,
    )
    return claims


def test_a_key_set_says_how_long_it_may_be_kept(admin: Api) -> None:
    """Five minutes by default, less what the server itself is behind."""
    answer = admin.door.call("GetJsonWebKeySet", pb.GetJsonWebKeySetRequest())
    assert 290 <= answer.max_age.ToTimedelta().total_seconds() <= 300


def test_metadata(admin: Api, service: Stand) -> None:
    """RFC 8414 §2: the same members with the same values, the issuer's own aside."""
    found = admin.door.call("GetServerMetadata", pb.GetServerMetadataRequest())
    assert found.issuer == service.issuer
    assert found.token_endpoint == f"{service.issuer}/oauth2/token"
    assert found.jwks_uri == f"{service.issuer}/.well-known/jwks.json"
    assert found.grant_types_supported == ["client_credentials"]
    assert found.response_types_supported == []
    unset = {field.name for field in found.DESCRIPTOR.fields} - {field.name for field, _ in found.ListFields()}
    assert unset == {"response_types_supported", "tls_client_certificate_bound_access_tokens"}


def test_a_rotated_key(alone: Stand, root: Api) -> None:
    """New tokens are signed by another key; those of before are still verified, by the key set and by the authority."""
    account = root.account()
    old = root.token(account)
    alone.rotate_key()
    new = root.token(account)
    assert parts(old)[0]["kid"] != parts(new)[0]["kid"]
    for token in (old, new):
        assert verified(root, token)["client_id"] == account.client_id
        assert root.introspect(account, token).active


def test_a_revoked_key(alone: Stand, root: Api) -> None:
    """It leaves the key set, and its tokens are refused everywhere; another key signs."""
    known = administrator(alone)
    old = root.token(known, audience=(alone.issuer,))
    kid = parts(old)[0]["kid"]
    alone.revoke_key(kid)
    assert kid not in [key["kid"] for key in root.keys()]  # noqa: SIM118  # a method of the API
    assert root.introspect(known, old) == INACTIVE
    with refused("UNAUTHENTICATED", "INVALID_TOKEN"):
        Api(root.door, alone.issuer, f"Bearer {old}").list(page_size=1)
    again = administrating(alone, root.door)  # type: ignore[arg-type]
    assert parts(again.token(first_account(alone)))[0]["kid"] != kid  # type: ignore[arg-type]
    assert again.list(page_size=1).service_accounts


def test_the_list_of_revocations_is_for_gateways(admin: Api) -> None:
    """Over gRPC it is refused to everybody else."""
    with refused("PERMISSION_DENIED", "NOT_A_GATEWAY"):
        admin.door.call("GetRevocations", pb.GetRevocationsRequest())


@pytest.mark.parametrize("method", ["IssueToken", "IntrospectToken", "RevokeToken", "RotateSecret"])
def test_basic_credentials_that_can_not_be_read(admin: Api, method: str) -> None:
    """Are malformed, not wrong."""
    requests: dict[str, Any] = {
        "IssueToken": pb.IssueTokenRequest(grant_type="client_credentials"),
        "IntrospectToken": pb.IntrospectTokenRequest(token="x"),
        "RevokeToken": pb.RevokeTokenRequest(token="x"),
        "RotateSecret": accounts_pb.RotateSecretRequest(id="x"),
    }
    for value in ("!", "YQ==", "JTphJQ=="):
        with refused("INVALID_ARGUMENT", "MALFORMED_BASIC"):
            admin.door.call(method, requests[method], f"Basic {value}")
