"""Tokens that are not ours: what they say is true, but for what a test changes."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

from joserfc import jws
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


def resigned(token: str, key: Any = None, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """The token with changed claims and header fields, signed by another key under the real `kid`."""
    old_header, old_claims = parts(token)
    new_header = old_header | (header or {})
    registry = jws.JWSRegistry(algorithms=[new_header["alg"]], strict_check_header=False)
    payload = json.dumps(old_claims | claims).encode()
    return jws.serialize_compact(new_header, payload, key or foreign_key(), registry=registry)
