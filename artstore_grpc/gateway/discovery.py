"""What a stranger may read: server metadata (RFC 8414), the JWK set (RFC 7517) and the revocations, made to be cached.

All carry a strong `ETag` over their bytes, so that a verifier that asks again is told 304 in a few bytes.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from typing import Any

from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc.call import Backend
from artstore_grpc.gateway.answers import JSON, Answer, encoded
from artstore_grpc.gateway.endpoint import Handler
from artstore_grpc.gateway.exchange import PIECE_BYTES, Exchange
from artstore_grpc.gateway.messages import to_json
from artstore_grpc.places import Places
from artstore_grpc.policy import PACKAGE

KEYS = f"{PACKAGE}.TokenService/GetJsonWebKeySet"
METADATA = f"{PACKAGE}.TokenService/GetServerMetadata"

REVOCATIONS = f"{PACKAGE}.TokenService/GetRevocations"
JWT = (b"content-type", b"application/jwt")
"""RFC 7519 §10.3.1."""

LONG_ANSWERS = 16
"""How many may be under way at once: who reads slowly has us hold a list that may be old by then."""

METADATA_MAX_AGE = 300
"""Seconds; the metadata change only with a release or a setting."""

REQUIRED_LISTS = frozenset({"response_types_supported"})
"""Always there, though empty (RFC 8414 §2); other empty members are left out (§3.2)."""


def jwks(backend: Backend) -> Handler:
    async def handle(exchange: Exchange) -> Answer:
        found: Any = await backend(pb.GetJsonWebKeySetRequest(), exchange.prepared(KEYS))
        document = {"keys": [without_empty(to_json(key)) for key in found.keys]}
        return cacheable(exchange, encoded(document), found.max_age.seconds)

    return handle


def revocations(backend: Backend) -> Handler:
    """With 100,000 revocations the list is 7 MB: it is asked for once, and a long one is sent to so many at once."""
    held = ("", b"")
    places = Places(LONG_ANSWERS, reason="TOO_MANY_LISTS")

    async def handle(exchange: Exchange) -> Answer:
        nonlocal held
        etag, body = held
        found: Any = await backend(pb.GetRevocationsRequest(etag=etag), exchange.prepared(REVOCATIONS))
        if found.etag != etag:
            held = etag, body = found.etag, found.revocations.encode()
        answer = tagged(exchange, body, f'"{etag}"', found.max_age.seconds, JWT)
        if len(answer.body) <= PIECE_BYTES:
            return answer
        place = ExitStack()
        place.enter_context(places.held(exchange.call.source))
        return answer._replace(place=place)

    return handle


def metadata(backend: Backend) -> Handler:
    async def handle(exchange: Exchange) -> Answer:
        found = await backend(pb.GetServerMetadataRequest(), exchange.prepared(METADATA))
        return cacheable(exchange, encoded(without_empty(to_json(found))), METADATA_MAX_AGE)

    return handle


def without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value or name in REQUIRED_LISTS}


def cacheable(exchange: Exchange, body: bytes, max_age: int, kind: tuple[bytes, bytes] = JSON[0]) -> Answer:
    """An answer that caches may keep for `max_age` seconds; 304 for one who has it (RFC 9110 §13.1.2)."""
    return tagged(exchange, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', max_age, kind)


def tagged(exchange: Exchange, body: bytes, etag: str, max_age: int, kind: tuple[bytes, bytes]) -> Answer:
    headers = ((b"cache-control", f"public, max-age={max_age}".encode()), (b"etag", etag.encode()))
    if has(exchange.text(b"if-none-match"), etag):
        return Answer(304, headers, b"")
    return Answer(200, (kind, *headers), body)


def has(if_none_match: str, etag: str) -> bool:
    """Whether `If-None-Match` names the tag, compared weakly (RFC 9110 §8.8.3.2)."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or tags == ["*"]
