"""An issuer for tests: keys, key sets, tokens that are right and tokens that are not, and a clock that a test moves."""

from __future__ import annotations

import base64
import functools
import hmac
import json
import threading
from typing import Any
from uuid import uuid4

from artstore.identity.key_sources import Fetched
from artstore.identity.refusals import KeySetError
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ISSUER = "https://issuer.test"
AUDIENCE = "storage"
NOW = 1_800_000_000.0


class Hands:
    """Two clocks that a test moves: `wall` may be set, `steady` only goes on."""

    def __init__(self) -> None:
        self.wall_seconds, self.steady_seconds = NOW, 5_000.0

    def wall(self) -> float:
        return self.wall_seconds

    def steady(self) -> float:
        return self.steady_seconds

    def advance(self, seconds: float) -> None:
        self.wall_seconds += seconds
        self.steady_seconds += seconds

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.wall_seconds += seconds


@functools.cache
def pair(algorithm: str = "RS256", number: int = 0) -> Any:
    """A key pair; another number is another one. Its `kid` is its thumbprint."""
    options: Any = {"alg": algorithm, "use": "sig"}
    if algorithm in ("EdDSA", "Ed25519"):
        return OKPKey.generate_key("Ed25519", options, auto_kid=True)
    if algorithm.startswith("ES"):
        return ECKey.generate_key({"ES256": "P-256", "ES384": "P-384"}[algorithm], options, auto_kid=True)
    return RSAKey.generate_key(2048, options, auto_kid=True)


def oct_key() -> dict[str, Any]:
    """A symmetric key, which no key set may hold."""
    return {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256", "kid": "symmetric"}


def public(key: Any, **members: Any) -> dict[str, Any]:
    """A key's public JWK; None leaves a member out."""
    return present(key.as_dict(private=False) | members)


def document(*keys: Any) -> dict[str, Any]:
    return {"keys": [key if isinstance(key, dict) else public(key) for key in keys]}


def present(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def claims(**changed: Any) -> dict[str, Any]:
    """What a token of now says; None leaves a claim out."""
    begins = int(NOW)
    return present(
        {
            "iss": ISSUER,
            "sub": "3f0c6f3c-0000-4000-8000-000000000001",
            "aud": AUDIENCE,
            "client_id": "sa_dev_tester_00000001",
            "scope": "storage.read storage.write",
            "role": "user",
            "name": "tester",
            "rate_limit": 100,
            "epoch": 0,
            "iat": begins,
            "nbf": begins,
            "exp": begins + 1800,
            "jti": uuid4().hex,
        }
        | changed
    )


def encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def token(
    key: Any = None,
    *,
    header: dict[str, Any] | None = None,
    text: str | None = None,
    head: str | None = None,
    **changed: Any,
) -> str:
    """An access token by a key, but for what a test changes; `text` and `head` are claims and header as they stand."""
    key = key or pair()
    written = head or json.dumps(present({"typ": "at+jwt", "alg": key.alg, "kid": key.kid} | (header or {})))
    body = f"{encoded(written.encode())}.{encoded((text or json.dumps(claims(**changed))).encode())}"
    return f"{body}.{encoded(signature(key, json.loads(written)['alg'], body.encode()))}"


def signature(key: Any, algorithm: str, data: bytes) -> bytes:
    """By hand (RFC 7518 §3.3, §3.5) where a library would refuse to; else by joserfc's algorithm."""
    if isinstance(key, RSAKey) and algorithm[:2] in ("RS", "PS"):
        digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[algorithm[2:]]
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        return key.private_key.sign(data, pss if algorithm.startswith("PS") else padding.PKCS1v15(), digest)
    return JWSRegistry.algorithms[key.alg].sign(data, key)


def unsigned(algorithm: str) -> str:
    header = {"typ": "at+jwt", "alg": algorithm, "kid": pair().kid}
    return f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims()).encode())}."


def by_hmac(secret: bytes) -> str:
    """HS256 with what everybody knows as the secret (RFC 8725 §2.1)."""
    header = {"typ": "at+jwt", "alg": "HS256", "kid": pair().kid}
    body = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims()).encode())}"
    return f"{body}.{encoded(hmac.digest(secret, body.encode(), 'sha256'))}"


def public_pem() -> bytes:
    return pair().public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Source:
    """A key source of which a test says what it brings, and when."""

    def __init__(self, *keys: Any, max_age: float | None = 300.0) -> None:
        self.answer: Any = document(*(keys or (pair(),)))
        self.max_age = max_age
        self.etag = ""
        self.fetched = 0
        self.asked: list[str] = []
        self.begun = threading.Event()
        self.gate: threading.Event | None = None
        """Where one is set, an answer waits for it."""

    def fetch(self, etag: str, timeout_seconds: float) -> Fetched:
        self.fetched += 1
        self.begun.set()
        self.asked.append(etag)
        if self.gate is not None:
            assert self.gate.wait(20)
        if isinstance(self.answer, Exception):
            raise self.answer
        return Fetched(self.answer, self.max_age, self.etag)

    def fails(self) -> None:
        self.answer = KeySetError("The network is down.", "UNREACHABLE")

    def brings(self, *keys: Any) -> None:
        self.answer = document(*keys)
