"""Tokens that are not ours: what they say is true, but for what a test changes."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from joserfc.jwk import RSAKey


@functools.cache
def foreign_key() -> RSAKey:
    """A key that no installation has."""
    return RSAKey.generate_key(2048)


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A token's header and claims, unverified."""
    header, claims, _ = token.split(".")
    return json.loads(unpadded(header)), json.loads(unpadded(claims))


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def segment(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def resigned(token: str, key: RSAKey | None = None, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """The token with changed claims and header fields, signed by another key under the real `kid`; None drops one."""
    old_header, old_claims = parts(token)
    new_header = present(old_header | (header or {}))
    body = f"{segment(new_header)}.{segment(present(old_claims | claims))}"
    signature = signed(new_header["alg"], key or foreign_key(), body.encode())
    return f"{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def present(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


def signed(algorithm: str, key: RSAKey, data: bytes) -> bytes:
    """By hand (RFC 7518 §3.3, §3.5), since a library signs nothing that a library should refuse."""
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384()}[algorithm[2:]]
    pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
    return key.private_key.sign(data, pss if algorithm.startswith("PS") else padding.PKCS1v15(), digest)
