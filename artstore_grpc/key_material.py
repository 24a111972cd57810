"""Key pairs: made for an algorithm, sealed to be stored, opened to sign. Which key is used when is for others."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import orjson
from joserfc import jwk
from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.model import KeyState, SigningKey
from artstore_grpc.vault import Vault

TOKEN_TYPE = "at+jwt"
"""RFC 9068 §2.1."""
RSA_BITS = 2048
CONTEXT = "signing key"
"""What a sealed private key is bound to, with its `kid`."""


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A signing key, opened and parsed: parsing costs 35 ms, so it is done once. So is its tokens' header."""

    stored: SigningKey
    key: Key
    sign: Callable[[bytes], bytes]
    """The signature of its JWS algorithm (RFC 7518 §3)."""
    protected: bytes
    """The JWS Protected Header as every token of this key begins, with the dot behind it."""
    damaged: bool = False
    """Whether it can only verify: its private key can't be opened."""


class Algorithms(JWSRegistry):
    """The JWS algorithms of the keys there are, and no others. joserfc's own would warn of `EdDSA` at every use, since
    RFC 9864 has a name for each of its curves; ours is pinned by the key (RFC 8037 §3.1)."""

    def get_alg(self, name: str) -> Any:
        """Raises UnsupportedAlgorithmError."""
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError("the algorithm is no key's")
        return self.algorithms[name]


class Signer:
    """A joserfc key as its algorithms sign with it: what may be done with it was looked up once, not per signature."""

    def __init__(self, key: Key) -> None:
        self._private = key.get_op_key("sign")
        self.curve_key_size = key.curve_key_size if isinstance(key, ECKey) else 0

    def get_op_key(self, operation: str) -> Any:
        return self._private


def generate(algorithm: str) -> Key:
    """A new key pair for a JWS algorithm; `kid` is its RFC 7638 thumbprint. An RSA key takes 100 ms and more."""
    options: jwk.KeyParameters = {"alg": algorithm, "use": "sig"}
    if algorithm == "EdDSA":
        return OKPKey.generate_key("Ed25519", options, auto_kid=True)
    if algorithm == "ES256":
        return ECKey.generate_key("P-256", options, auto_kid=True)
    return RSAKey.generate_key(RSA_BITS, options, auto_kid=True)


def encoded(value: bytes) -> bytes:
    """Base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def sealed(vault: Vault, made: Key, now: datetime, token_lifetime_seconds: int) -> SigningKey:
    """A new key pair as it is stored: prepared, its private key sealed."""
    kid = str(made.kid)
    public = {name: str(value) for name, value in made.as_dict(private=False).items() if isinstance(value, str)}
    private = json.dumps(made.as_dict(private=True)).encode()
    return SigningKey(
        kid=kid,
        algorithm=str(made.alg),
        public_jwk=public,
        sealed=vault.seal(private, CONTEXT, kid),
        state=KeyState.PREPARED,
        create_time=now,
        token_lifetime_seconds=token_lifetime_seconds,
    )


def opened(vault: Vault, key: SigningKey) -> LoadedKey:
    """A stored key, ready to sign. Raises WrongKey where it was sealed under another key-encryption key."""
    private = json.loads(vault.open(key.sealed, CONTEXT, key.kid))
    header = {"typ": TOKEN_TYPE, "alg": key.algorithm, "kid": key.kid}
    parsed = jwk.import_key(private)
    algorithm = Algorithms(algorithms=[key.algorithm]).get_alg(key.algorithm)
    sign: Callable[[bytes], bytes] = partial(algorithm.sign, key=Signer(parsed))
    return LoadedKey(key, parsed, sign, encoded(orjson.dumps(header)) + b".")


def public_part(key: SigningKey) -> LoadedKey:
    """A stored key whose private part is damaged: what it has signed is verified and published as before."""

    def sign(_: bytes) -> bytes:
        raise StoreUnavailable("the signing key is damaged")

    return LoadedKey(key, jwk.import_key(dict(key.public_jwk)), sign, b"", damaged=True)
