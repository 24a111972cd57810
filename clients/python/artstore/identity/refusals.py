"""Why a token is refused by whoever verifies it: one class per outcome that a service acts on, each with a stable
`reason`.

    TokenRefused
    ├── MalformedToken        it is no access token at all: its form, its header, the types of its claims
    ├── UnknownKey            no published key has its `kid` (or has it any more)
    ├── BadSignature          its key did not sign it
    ├── WrongIssuer           another issuer's
    ├── WrongAudience         for another service
    ├── TokenExpired
    ├── ClocksDiffer          from the future, or this machine's clock went back: no time can be trusted
    ├── TokenRevoked          itself, its account, or all of its account's older tokens
    └── CannotVerify          nothing is known against it, and it can't be verified now: UNAVAILABLE, try again
        ├── KeysUnavailable   the key set can't be had, or is not one
        └── TrustStale        the trust feed is silent, and the service chose to refuse; or asking failed

Messages are for the service's own log. They name no token; of its claims only those that its owner may as well see.
"""

from __future__ import annotations


class TokenRefused(Exception):
    """The token is not accepted: `reason` is a stable word in SCREAMING_SNAKE_CASE, `message` says what to do."""

    reason = "INVALID_TOKEN"

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason


class MalformedToken(TokenRefused):
    """It is not a JWT access token (RFC 9068), or one with what this verifier refuses to interpret."""

    reason = "MALFORMED"


class UnknownKey(TokenRefused):
    """No published key has its `kid`."""

    reason = "UNKNOWN_KEY"


class BadSignature(TokenRefused):
    """The key that it names did not sign it."""

    reason = "BAD_SIGNATURE"


class WrongIssuer(TokenRefused):
    """It was issued by another issuer than the one that is trusted here."""

    reason = "WRONG_ISSUER"


class WrongAudience(TokenRefused):
    """It is for another service: replayed, or asked for with another `audience`."""

    reason = "WRONG_AUDIENCE"


class TokenExpired(TokenRefused):
    """Its `exp` has passed."""

    reason = "EXPIRED"


class ClocksDiffer(TokenRefused):
    """It was issued in the future, or this machine's clock went back."""

    reason = "CLOCKS_DIFFER"


class TokenRevoked(TokenRefused):
    """It was revoked, or its account was suspended or deleted, or the account's older tokens are void."""

    reason = "REVOKED"


class WrongCertificate(TokenRefused):
    """It is bound to a client's certificate (RFC 8705), and came without it."""

    reason = "WRONG_CERTIFICATE"


class CannotVerify(TokenRefused):
    """Whether it is good can't be known now; the caller may try again."""

    reason = "CANNOT_VERIFY"


class KeysUnavailable(CannotVerify):
    """The key set can't be had; `__cause__` is the KeySetError that says why."""

    reason = "KEYS_UNAVAILABLE"


class TrustStale(CannotVerify):
    """Nobody can say whether it was revoked."""

    reason = "TRUST_STALE"


class KeySetError(Exception):
    """A key set that can't be had or used: `reason` is a stable word, `message` says what to do."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
