"""A verifier under test, and a trust feed that says what the test has it say."""

from __future__ import annotations

from typing import Any

from artstore.identity import (
    Client,
    KeySet,
    TokenVerifier,
    TrustFeed,
)
from artstore.identity.v1 import token_service_pb2 as pb
from issuer import AUDIENCE, ISSUER, NOW, Hands, Source, claims, pair, public

REAL, OTHER = pair(), pair("RS256", 1)
SUBJECT = claims()["sub"]


class Told:
    """A trust feed that hears what a test says, on the test's clock."""

    def __init__(self, client: Client, hands: Hands) -> None:
        self.hands = hands
        self.feed = TrustFeed(client, monotonic=hands.steady)

    def snapshot(self, *keys: Any) -> None:
        listed = [pb.TrustedKey(key=pb.JsonWebKey(**public(key)), state=pb.KEY_STATE_ACTIVE) for key in keys]
        self._hear(snapshot=pb.TrustSnapshot(keys=listed, last=True))
        self.heartbeat()

    def revoked(self, jti: str) -> None:
        self._hear(changes=pb.TrustChanges(revoked_tokens=[pb.RevokedToken(jti=jti, exp=int(NOW) + 1800)]))

    def account(self, **trust: Any) -> None:
        self._hear(changes=pb.TrustChanges(accounts=[pb.AccountTrust(account_id=SUBJECT, **trust)]))

    def key_gone(self, kid: str) -> None:
        gone = pb.TrustedKey(key=pb.JsonWebKey(kid=kid), state=pb.KEY_STATE_REVOKED)
        self._hear(changes=pb.TrustChanges(keys=[gone]))

    def heartbeat(self) -> None:
        self._hear(heartbeat=pb.TrustHeartbeat())

    def _hear(self, **content: Any) -> None:
        self.feed._take(pb.WatchTrustResponse(sequence=1, **content))


def verifier(hands: Hands, source: Source | None = None, **options: Any) -> TokenVerifier:
    keys = KeySet(source or Source(), clock=hands.steady)
    return TokenVerifier(ISSUER, audience=AUDIENCE, keys=keys, clock=hands.wall, steady=hands.steady, **options)
