"""Our tokens, obtained by curl and verified by PyJWT from the JWK set, neither of which knows of us."""

from __future__ import annotations

from typing import Any

import httpx
import jwt
import pytest

from tests.installation import Account, Installation

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "EdDSA")


def verified(service: Installation, token: str, algorithm: str) -> dict[str, Any]:
    """The claims, if PyJWT finds the key and every claim right (RFC 9068 §4)."""
    metadata = httpx.get(f"{service.url}/.well-known/oauth-authorization-server").json()
    key = jwt.PyJWKClient(metadata["jwks_uri"]).get_signing_key_from_jwt(token)
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=[algorithm],
        audience="artstore",
        issuer=metadata["issuer"],
        options={"require": ["exp", "iat", "nbf", "sub", "jti", "client_id"], "strict_aud": True},
    )
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    return claims


def form(service: Installation, client: Account) -> dict[str, Any]:
    answer = httpx.post(
        f"{service.url}/oauth2/token", data={"grant_type": "client_credentials"}, auth=(client.client_id, client.secret)
    )
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_pyjwt(service: Installation, client: Account) -> None:
    """PyJWT verifies a token with nothing but the discovery document."""
    assert verified(service, form(service, client)["access_token"], "RS256")["sub"] == client.id


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # joserfc's word on the name, for RFC 9864's newer ones
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm(tmp_path_factory: pytest.TempPathFactory, algorithm: str) -> None:
    """So it does for every algorithm that a setting may choose."""
    with Installation(tmp_path_factory.mktemp("algorithm"), signing_algorithm=algorithm) as service:
        account = service.account("user")
        assert verified(service, form(service, account)["access_token"], algorithm)["sub"] == account.id
