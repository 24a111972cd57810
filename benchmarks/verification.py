"""What a service pays to verify a token by the client library, in this process: at first sight, beside what joserfc
alone costs for the same token, and when it was seen before, without and with the trust feed.

Every token of a round is new to the verifier. The two take turns over the same tokens, so that whatever else the
machine does falls on both alike; figures are µs of this thread's CPU.
"""

from __future__ import annotations

import gc
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from artstore.identity import Client, KeySet, TokenVerifier, TrustFeed
from artstore.identity.key_sources import Fetched
from artstore.identity.v1 import token_service_pb2 as pb
from joserfc import jwk, jwt
from joserfc.jwk import RSAKey

ISSUER, AUDIENCE = "https://identity.bench.test", "artstore"
LIBRARY = "joserfc: decode and claims check"
FIRST = "client verifies a token at first sight"
KNOWN = "client verifies a known token"
KNOWN_TRUSTED = "client verifies a known token, trust feed held"
NAMES = (LIBRARY, FIRST, KNOWN, KNOWN_TRUSTED)
BATCH = 200
"""Tokens in one turn."""
PAIRS = {False: 40, True: 15}
"""Turns of each, in a whole run and in a quick one."""
REVOCATIONS = 1_000

Sight = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Verified:
    """What one way of verifying costs: µs for a token, turn by turn."""

    name: str
    cpu: tuple[float, ...]
    ratios: tuple[float, ...] = ()
    """Of each turn to the library's just before."""


class Source:
    """The key set, as it would come from the service."""

    def __init__(self, key: RSAKey) -> None:
        self._document = {"keys": [dict(key.as_dict(private=False))]}

    def fetch(self, etag: str, timeout_seconds: float) -> Fetched:
        return Fetched(self._document, 3600.0)


def chosen(only: str) -> bool:
    """Whether any of these rows is asked for."""
    return any(re.search(only, name) for name in NAMES)


async def verifications(*, quick: bool) -> list[Verified]:
    """Measures all four."""
    key = RSAKey.generate_key(2048, {"alg": "RS256", "use": "sig"}, auto_kid=True)
    library, pairs = library_check(key), PAIRS[quick]
    verifier = TokenVerifier(ISSUER, audience=AUDIENCE, keys=KeySet(Source(key)))
    async with Client("127.0.0.1:1") as client:
        trusting = TokenVerifier(ISSUER, audience=AUDIENCE, trust=held_feed(client, key))
        await verifier.verify(token(key))
        base, first, ratios = [], [], []
        for _ in range(pairs):
            batch = [token(key) for _ in range(BATCH)]
            base.append(turn(library, batch))
            first.append(await async_turn(verifier, batch))
            ratios.append(first[-1] / base[-1])
        known = [[await known_turn(each, token(key)) for _ in range(pairs)] for each in (verifier, trusting)]
    return [
        Verified(LIBRARY, tuple(base)),
        Verified(FIRST, tuple(first), tuple(ratios)),
        Verified(KNOWN, tuple(known[0])),
        Verified(KNOWN_TRUSTED, tuple(known[1])),
    ]


def held_feed(client: Client, key: RSAKey) -> TrustFeed:
    """A feed that has just heard from the service."""
    feed = TrustFeed(client, monotonic=lambda: 0.0)
    jwk_members: Any = {name: value for name, value in key.as_dict(private=False).items() if isinstance(value, str)}
    keys = [pb.TrustedKey(key=pb.JsonWebKey(**jwk_members), state=pb.KEY_STATE_ACTIVE)]
    revoked = [pb.RevokedToken(jti=secrets.token_hex(16), exp=2_000_000_000) for _ in range(REVOCATIONS)]
    snapshot = pb.TrustSnapshot(keys=keys, revoked_tokens=revoked, last=True)
    feed._take(pb.WatchTrustResponse(sequence=1, snapshot=snapshot))
    feed._take(pb.WatchTrustResponse(sequence=1, heartbeat=pb.TrustHeartbeat()))
    return feed


def library_check(key: RSAKey) -> Sight:
    """What a careful service would do with joserfc alone, its objects made once."""
    public = jwk.import_key(key.as_dict(private=False))
    needed: jwt.ClaimsOption = {"essential": True}
    claims = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": ISSUER}, aud={"essential": True, "value": AUDIENCE}, exp=needed
    )

    def check(sent: str) -> object:
        decoded = jwt.decode(sent, public, algorithms=["RS256"])
        claims.validate(decoded.claims)
        return decoded

    return check


def token(key: RSAKey) -> str:
    """A token with what the service puts into it."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "sub": "3f0c6f3c-7b5e-4f9e-8a52-7d6f1f3c2b10",
        "aud": AUDIENCE,
        "client_id": "sa_prod_bench_0a1b2c3d",
        "scope": "storage.read storage.write",
        "role": "user",
        "name": "bench",
        "rate_limit": 1000,
        "epoch": 0,
        "iat": now,
        "nbf": now,
        "exp": now + 1800,
        "jti": secrets.token_hex(16),
    }
    return jwt.encode({"typ": "at+jwt", "alg": "RS256", "kid": key.kid}, said, key)


def turn(sight: Sight, batch: Sequence[str]) -> float:
    gc.collect()
    started = time.thread_time()
    for each in batch:
        sight(each)
    return (time.thread_time() - started) / len(batch) * 1e6


async def async_turn(verifier: TokenVerifier, batch: Sequence[str]) -> float:
    gc.collect()
    started = time.thread_time()
    for each in batch:
        await verifier.verify(each)
    return (time.thread_time() - started) / len(batch) * 1e6


async def known_turn(verifier: TokenVerifier, sent: str) -> float:
    """One that was seen, so many times in a row."""
    await verifier.verify(sent)
    return await async_turn(verifier, [sent] * BATCH)
