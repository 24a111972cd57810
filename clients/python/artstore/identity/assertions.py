"""Client assertions: what a service with a key of its own authenticates with, in place of a secret (RFC 7523 §2.2)."""

from __future__ import annotations

import json
import secrets
import time
import warnings
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from joserfc import jwk, jwt
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 §2.2."""
LIFETIME = timedelta(seconds=60)
"""How long an assertion is valid: for a call and two clocks that differ. The service takes at most 10 minutes."""
JTI_BYTES = 16
"""Random: no two assertions are the same one (RFC 7519 §4.1.7)."""

PrivateKey = RSAKey | ECKey | OKPKey
KeyText = str | bytes | Mapping[str, Any]
"""A private key as it may be given: a JWK, as a mapping or as JSON, or PEM."""


class Signing(JWSRegistry):
    """The algorithms above; the library's own would warn at each use of the name EdDSA (RFC 9864)."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


def private_key(given: KeyText) -> PrivateKey:
    """Reads a private key: RSA, P-256 or Ed25519. Raises ValueError, which repeats nothing of it, for anything else."""
    try:
        key = _imported(given)
    except (JoseError, ValueError, TypeError, KeyError):
        key = None
    if not isinstance(key, PrivateKey) or not key.is_private:
        raise ValueError("the key must be a private JWK, or PEM: RSA, P-256 or Ed25519") from None
    if isinstance(key, ECKey | OKPKey) and key.curve_name not in ("P-256", "Ed25519"):
        raise ValueError("the key's curve must be P-256 or Ed25519")
    return key


def _imported(given: KeyText) -> Any:
    if isinstance(given, Mapping):
        return jwk.import_key(dict(given))
    text = given.decode() if isinstance(given, bytes) else given
    if text.lstrip().startswith("{"):
        return jwk.import_key(json.loads(text))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # that the type isn't named: it is checked by the caller
        return jwk.import_key(text)


def client_assertion(
    client_id: str, audience: str, key: PrivateKey | KeyText, *, lifetime: timedelta = LIFETIME
) -> str:
    """A JWT that authenticates `client_id` at `audience` once, within `lifetime` (at most 10 minutes) from now.

    `audience` is the service's issuer identifier, and nobody else's: who is named there can use the assertion. `key` is
    a private one whose public half is registered on the account. A JWK's `alg` chooses between RS256 and PS256, and its
    `kid` is sent along; without one, the key's RFC 7638 thumbprint is.
    """
    signing = key if isinstance(key, PrivateKey) else private_key(key)
    now = int(time.time())
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now,
        "exp": now + int(lifetime.total_seconds()),
        "jti": secrets.token_hex(JTI_BYTES),
    }
    algorithm = algorithm_of(signing)
    header = {"alg": algorithm, "kid": signing.kid or signing.thumbprint()}
    return jwt.encode(header, claims, signing, registry=Signing(algorithms=[algorithm]))


def algorithm_of(key: PrivateKey) -> str:
    """The JWS algorithm that a key signs assertions with."""
    if isinstance(key, RSAKey):
        return "PS256" if key.alg == "PS256" else "RS256"
    return "ES256" if isinstance(key, ECKey) else "EdDSA"
