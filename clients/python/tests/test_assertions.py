"""A client with a private key in place of a secret: what it reads, what it signs, what it sends."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import jwt as pyjwt
import pytest
from artstore.identity import AdminClient, client_assertion
from artstore.identity.assertions import ASSERTION_TYPE, private_key
from artstore.identity.v1 import token_service_pb2 as tokens
from canned import Canned
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

ISSUER = "https://identity.example"
ME = "sa_dev_test_00000000"
PAIRS = {
    "RS256": RSAKey.generate_key(2048),
    "PS256": RSAKey.generate_key(2048, {"alg": "PS256"}),
    "ES256": ECKey.generate_key("P-256"),
    "EdDSA": OKPKey.generate_key("Ed25519"),
}


def verified(assertion: str, algorithm: str, audience: str = ISSUER) -> dict[str, Any]:
    """The claims, as another library reads them."""
    public = PAIRS[algorithm].as_pem(private=False)
    return dict(pyjwt.decode(assertion, public, algorithms=[algorithm], audience=audience))


@pytest.mark.parametrize("algorithm", PAIRS)
@pytest.mark.parametrize("form", ["mapping", "json", "pem", "read"])
def test_what_it_signs(algorithm: str, form: str) -> None:
    """Every claim that RFC 7523 §3 asks for, by each kind of key in each form; a JWK's alg chooses PS256."""
    pair = PAIRS[algorithm]
    forms: dict[str, Any] = {
        "mapping": pair.as_dict(private=True),
        "json": json.dumps(pair.as_dict(private=True)),
        "pem": pair.as_pem(private=True),
        "read": private_key(pair.as_dict(private=True)),
    }
    signed = "RS256" if (algorithm, form) == ("PS256", "pem") else algorithm  # PEM has no alg
    assertion = client_assertion(ME, ISSUER, forms[form])
    assert pyjwt.get_unverified_header(assertion) == {"typ": "JWT", "alg": signed, "kid": pair.thumbprint()}
    claims = pyjwt.decode(assertion, pair.as_pem(private=False), algorithms=[signed], audience=ISSUER)
    assert (claims["iss"], claims["sub"], claims["aud"]) == (ME, ME, ISSUER)
    assert 55 <= claims["exp"] - time.time() <= 60
    assert claims["jti"] != verified_jti(client_assertion(ME, ISSUER, forms[form]))


def verified_jti(assertion: str) -> str:
    return str(pyjwt.decode(assertion, options={"verify_signature": False})["jti"])


def test_its_own_kid_and_lifetime() -> None:
    """A JWK's kid is sent along, and the lifetime is the caller's to choose."""
    pair = PAIRS["ES256"].as_dict(private=True) | {"kid": "mine"}
    assertion = client_assertion(ME, ISSUER, pair, lifetime=timedelta(minutes=5))
    assert pyjwt.get_unverified_header(assertion)["kid"] == "mine"
    assert 295 <= verified(assertion, "ES256")["exp"] - time.time() <= 300


@pytest.mark.parametrize(
    "given",
    [
        "",
        "{}",
        "secret",
        "{not json",
        PAIRS["ES256"].as_dict(private=False),
        PAIRS["ES256"].as_pem(private=False),
        OctKey.generate_key(256).as_dict(),
        ECKey.generate_key("P-384").as_dict(private=True),
        OKPKey.generate_key("X25519").as_dict(private=True),
    ],
)
def test_keys_that_cannot_sign(given: Any) -> None:
    """Nothing, noise, a public key, a shared one, another curve: refused when the client is made, and not repeated."""
    with pytest.raises(ValueError, match="key") as caught:
        AdminClient("127.0.0.1:1", client_id=ME, private_key=given)
    assert not given or str(given) not in str(caught.value)


def test_a_secret_beside_a_key() -> None:
    """One of the two."""
    with pytest.raises(ValueError, match="not both"):
        AdminClient("127.0.0.1:1", client_id=ME, client_secret="x", private_key=PAIRS["ES256"].as_dict(private=True))


async def test_every_call_has_its_own(server: Canned) -> None:
    """Each call that authenticates sends a fresh assertion for the issuer that the server names, and no secret."""
    server.answers["GetServerMetadata"] = lambda _: tokens.GetServerMetadataResponse(issuer=ISSUER)
    async with AdminClient(server.target, client_id=ME, private_key=PAIRS["EdDSA"].as_dict(private=True)) as client:
        await client.issue_token()
        await client.introspect("token")
        await client.revoke("token")
    sent = [server.named(name)[0][0] for name in ("IssueToken", "IntrospectToken", "RevokeToken")]
    assert len({verified(each.client_assertion, "EdDSA")["jti"] for each in sent}) == 3
    for each in sent:
        assert (each.client_assertion_type, each.client_id, each.client_secret) == (ASSERTION_TYPE, "", "")
    assert len(server.named("GetServerMetadata")) == 1


async def test_an_issuer_that_was_given(server: Canned) -> None:
    """Nobody is asked, so that a false service can't have an assertion for another made."""
    key = PAIRS["ES256"].as_dict(private=True)
    async with AdminClient(server.target, client_id=ME, private_key=key, issuer="https://known.example") as client:
        await client.issue_token()
    assert verified(server.named("IssueToken")[0][0].client_assertion, "ES256", "https://known.example")
    assert not server.named("GetServerMetadata")


async def test_its_own_secret_by_its_key(server: Canned) -> None:
    """A client with a key rotates its own secret by an assertion, and another account's by a token."""
    server.answers["GetServerMetadata"] = lambda _: tokens.GetServerMetadataResponse(issuer=ISSUER)
    key = PAIRS["ES256"].as_dict(private=True)
    async with AdminClient(server.target, client_id=ME, private_key=key) as client:
        await client.rotate_secret(ME)
        await client.rotate_secret("another")
    (mine, metadata), (other, others) = server.named("RotateSecret")
    assert verified(mine.client_assertion, "ES256")["sub"] == ME
    assert (mine.client_assertion_type, mine.id, metadata.get("authorization")) == (ASSERTION_TYPE, ME, None)
    assert (other.client_assertion, other.id) == ("", "another")
    assert others["authorization"].startswith("Bearer")
