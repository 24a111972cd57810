"""Tokens with the flaws that JWT verifiers are known for (RFC 8725): each is refused as a bearer and inactive."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwk
from joserfc.jwk import RSAKey

from artstore_grpc.key_policy import active
from artstore_grpc.model import SCOPES
from artstore_grpc.store.sql import SqlStore
from tests.api.callers import Api
from tests.api.conftest import first_account
from tests.api.doors import refused
from tests.api.forgery import foreign_key, parts, resigned, segment, unpadded
from tests.installation import Installation
from tests.roots import opened_vault
from tests.signers import Signer


@pytest.fixture
def root(grpc_admin: Api) -> Api:
    """The shared installation's administrator over gRPC: verification is behind every door alike."""
    return grpc_admin


@pytest.fixture(scope="module")
def real_key(service: Installation) -> RSAKey:
    """The installation's own signing key, opened: what it signs fails for its contents alone."""

    async def sealed() -> tuple[bytes, str]:
        store = SqlStore(service.settings.store_url)
        key = active(await store.signing_keys())
        await store.close()
        return key.sealed, key.kid

    vault = service.run(opened_vault(service.settings))
    value, kid = service.run(sealed())
    key = jwk.import_key(json.loads(vault.open(value, "signing key", kid)))
    assert isinstance(key, RSAKey)
    return key


@pytest.fixture
def token(root: Api, service: Installation) -> str:
    """A live token of the administrator for the issuer, which a test may spoil."""
    return root.token(first_account(service), audience=(root.issuer,))


def unsigned(token: str, algorithm: str) -> str:
    header, claims = parts(token)
    return f"{segment(header | {'alg': algorithm})}.{segment(claims)}."


def by_hmac(token: str, key: bytes) -> str:
    """HS256 with what everybody knows as the secret (RFC 8725 §2.1)."""
    header, claims = parts(token)
    signed = f"{segment(header | {'alg': 'HS256'})}.{segment(claims)}"
    digest = hmac.digest(key, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def by_elliptic(token: str) -> str:
    """A `kid` of another algorithm: a key of the forger's own under the real key's name (RFC 8725 §3.1)."""
    header, claims = parts(token)
    return Signer("ES256").sign(claims, **(header | {"alg": "ES256"}))


Forge = Callable[[str, RSAKey], str]
NOW = int(time.time())

FORGED: dict[str, Forge] = {
    "alg none": lambda token, _: unsigned(token, "none"),
    "alg None": lambda token, _: unsigned(token, "None"),
    "no signature": lambda token, _: token.rpartition(".")[0] + ".",
    "another key": lambda token, _: resigned(token),
    "another key of another kid": lambda token, _: resigned(token, header={"kid": "nobody"}),
    "another key in the header": lambda token, _: resigned(
        token, header={"jwk": foreign_key().as_dict(private=False), "jku": "http://127.0.0.1:1/"}
    ),
    "HS256 by the public key in PEM": lambda token, key: by_hmac(
        token, key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ),
    "HS256 by the modulus": lambda token, key: by_hmac(token, unpadded(str(key.as_dict(private=False)["n"]))),
    "other claims": lambda token, _: (
        token.split(".")[0] + "." + segment(parts(token)[1] | {"exp": NOW + 10**6}) + "." + token.split(".")[2]
    ),
    "a critical extension": lambda token, key: resigned(token, key, header={"crit": ["b64"], "b64": True}),
    "an unknown critical extension": lambda token, key: resigned(token, key, header={"crit": ["x"], "x": 1}),
    "typ JWT": lambda token, key: resigned(token, key, header={"typ": "JWT"}),
    "typ of another kind": lambda token, key: resigned(token, key, header={"typ": "logout+jwt"}),
    "no typ": lambda token, key: resigned(token, key, header={"typ": None}),
    "an empty typ": lambda token, key: resigned(token, key, header={"typ": ""}),
    "no kid": lambda token, key: resigned(token, key, header={"kid": None}),
    "no iss": lambda token, key: resigned(token, key, iss=None),
    "RS384 by the real key": lambda token, key: resigned(token, key, header={"alg": "RS384"}),
    "PS256 by the real key": lambda token, key: resigned(token, key, header={"alg": "PS256"}),
    "PS256 under the real kid, by another key": lambda token, _: resigned(token, header={"alg": "PS256"}),
    "ES256 under an RSA key's kid": lambda token, _: by_elliptic(token),
    "the real key under another kid": lambda token, key: resigned(token, key, header={"kid": "nobody"}),
    "another issuer": lambda token, key: resigned(token, key, iss="http://other.test"),
    "not valid yet": lambda token, key: resigned(token, key, nbf=NOW + 10**6),
    "expired": lambda token, key: resigned(token, key, exp=NOW - 10),
    "an exp that is no number": lambda token, key: resigned(token, key, exp="tomorrow"),
    "no exp": lambda token, key: resigned(token, key, exp=None),
    "no sub": lambda token, key: resigned(token, key, sub=None),
    "no jti": lambda token, key: resigned(token, key, jti=None),
    "no aud": lambda token, key: resigned(token, key, aud=None),
    "a sub that nobody has": lambda token, key: resigned(token, key, sub="nobody"),
    "another epoch": lambda token, key: resigned(token, key, epoch=1),
    "no epoch": lambda token, key: resigned(token, key, epoch=None),
    "five parts": lambda token, _: token + ".a.b",
    "white space": lambda token, _: token.replace(".", ". ", 1),
}


def test_the_real_key_is_real(root: Api, token: str, real_key: RSAKey) -> None:
    """What the real key signs unchanged is accepted, so that the cases below fail for what they change."""
    same = resigned(token, real_key)
    assert Api(root.door, root.issuer, f"Bearer {same}").list(page_size=1).service_accounts


OURS = ("a sub that nobody has", "another epoch", "no epoch")
"""What only the real key can have signed, and valid but for the account: its `jti` is ours to revoke."""


@pytest.mark.parametrize("flaw", FORGED)
def test_forged_tokens(root: Api, service: Installation, token: str, real_key: RSAKey, flaw: str) -> None:
    """Refused as a bearer with one answer, inactive to an administrator, and a success to revoke, which does
    nothing: the real token, whose `jti` it has, lives on."""
    forged = FORGED[flaw](token, real_key)
    with refused("UNAUTHENTICATED", "INVALID_TOKEN"):
        Api(root.door, root.issuer, f"Bearer {forged}").list(page_size=1)
    known = first_account(service)
    assert not root.introspect(known, forged).active
    root.revoke(known, forged)
    assert root.introspect(known, token).active is (flaw not in OURS)


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Token x", "bearer", "Basic x", "Bearer  ", "Digest a=b"])
def test_authorizations_without_a_token(root: Api, value: str) -> None:
    """Another scheme, or none, is a missing token; an empty one is a bad one."""
    with refused("UNAUTHENTICATED") as caught:
        Api(root.door, root.issuer, value).list(page_size=1)
    assert caught.value.reason in ("MISSING_TOKEN", "INVALID_TOKEN", "INVALID_CLIENT")


def test_the_scheme_ignores_case(root: Api, token: str) -> None:
    """RFC 9110 §11.1."""
    for scheme in ("bearer", "BEARER", "Bearer"):
        assert Api(root.door, root.issuer, f"{scheme} {token}").list(page_size=1).service_accounts


def test_a_denied_token_grants_nothing(root: Api, token: str, real_key: RSAKey) -> None:
    """Scopes that the account lacks don't come from the token: a claim can only narrow."""
    auditor = root.account("auditor")
    wide: Any = resigned(root.bearer(auditor).authorization.removeprefix("Bearer "), real_key, scope=" ".join(SCOPES))
    with refused("PERMISSION_DENIED", "INSUFFICIENT_SCOPE"):
        Api(root.door, root.issuer, f"Bearer {wide}").create("readonly")
