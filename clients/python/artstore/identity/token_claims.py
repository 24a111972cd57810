"""What a token says, and whether its issuer said it to this service, now: RFC 9068 §4 over RFC 7519, RFC 7515. No I/O.

Signatures and claims are joserfc's work. What it leaves to its caller is done here: the algorithm is the key's and
never the token's choice (RFC 8725 §3.1), any `crit` is refused, `typ` must be an access token's, no member of the
JSON may come twice, and the times are held against more than this machine's clock (IssuerTime).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from artstore.identity.caller import VerifiedToken
from artstore.identity.clocks import IssuerTime
from artstore.identity.refusals import (
    BadSignature,
    ClocksDiffer,
    MalformedToken,
    TokenExpired,
    TokenRefused,
    WrongAudience,
    WrongIssuer,
)
from artstore.identity.verification_keys import VerificationKey
from joserfc import jws
from joserfc.errors import ExpiredTokenError, JoseError, MissingClaimError, UnsupportedAlgorithmError
from joserfc.jws import CompactSignature, JWSRegistry
from joserfc.jwt import ClaimsOption, JWTClaimsRegistry
from joserfc.util import urlsafe_b64decode

ACCEPTED_TYPES = ("at+jwt", "application/at+jwt")
"""RFC 9068 §4."""
MAX_TOKEN = 16 * 1024
"""Characters, as the service has it. A token of many audiences has a thousand or two."""
MAX_HEADERS = 64
"""Headers that are remembered: each key's tokens have one and the same."""
BEGUN = ("iat", "nbf")
"""The claims that say since when a token is valid."""
NAMES = ("sub", "client_id", "jti")
"""Claims without which nobody can say whose token it is, nor whether it was revoked (RFC 9068 §2.2)."""
MOST_AHEAD_SECONDS = 900.0
"""A token that is from further in the future says nothing of the time: one replica's clock must not void all tokens."""


class Signed:
    """A token taken apart, nothing of it verified. `parts` is joserfc's, None for a header that was checked before."""

    __slots__ = ("algorithm", "kid", "parts", "token")

    def __init__(self, token: bytes, kid: str, algorithm: str, parts: CompactSignature | None) -> None:
        self.token = token
        self.kid = kid
        self.algorithm = algorithm
        self.parts = parts


class PinnedAlgorithms(JWSRegistry):
    """Any algorithm that joserfc has, since the caller has held its name against its key's. joserfc's own would warn of
    the name EdDSA at each use (RFC 9864)."""

    def get_alg(self, name: str) -> Any:
        if name not in self.algorithms:
            raise UnsupportedAlgorithmError("no such algorithm")
        return self.algorithms[name]


class AccessTokenClaims(JWTClaimsRegistry):
    """joserfc's checks; `iat` and `nbf` are held against another clock, with another leeway."""

    def __init__(self, begun: JWTClaimsRegistry, **options: Any) -> None:
        super().__init__(**options)
        self._begun = begun

    def validate_iat(self, value: object) -> None:
        self._begun.validate_iat(value)

    def validate_nbf(self, value: object) -> None:
        self._begun.validate_nbf(value)


class TokenClaims:
    """Checks tokens of one issuer for one service."""

    def __init__(
        self,
        issuer: str,
        audiences: tuple[str, ...],
        *,
        leeway_seconds: int,
        expiry_leeway_seconds: int,
        clock: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        """`clock` is in seconds since 1970, `steady` one that nobody sets."""
        self._issuer = issuer
        self._audiences = audiences
        self._clock, self._steady = clock, steady
        self._leeway_seconds = leeway_seconds
        self.expiry_leeway_seconds = expiry_leeway_seconds
        self._time = IssuerTime()
        self._time.saw(clock(), steady())
        self._headers: dict[bytes, tuple[str, str]] = {}
        self._registry = PinnedAlgorithms(algorithms=[])
        self._json = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
        needed: ClaimsOption = {"essential": True}
        self._checks = AccessTokenClaims(
            JWTClaimsRegistry(now=self._own_now, leeway=leeway_seconds),
            now=self._latest_now,
            leeway=expiry_leeway_seconds,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "values": list(audiences)},
            exp=needed,
            iat=needed,
        )

    def now(self) -> float:
        """The latest that it may be: what `exp` is held against."""
        return max(self._clock(), self._time.at_least(self._steady()))

    def _own_now(self) -> int:
        return int(self._clock())

    def _latest_now(self) -> int:
        return int(self.now())

    def taken_apart(self, token: str) -> Signed:
        """The token's parts, and which key it says has signed it. Raises MalformedToken."""
        if not isinstance(token, str) or not token.isascii() or len(token) > MAX_TOKEN:
            raise MalformedToken(f"An access token is a string of at most {MAX_TOKEN} ASCII characters.")
        encoded = token.encode("ascii")
        known = self._headers.get(encoded.partition(b".")[0])
        if known is not None:
            return Signed(encoded, known[0], known[1], None)
        try:
            parts = jws.extract_compact(encoded, registry=self._registry)
            header = self._parsed(urlsafe_b64decode(parts.segments["header"]))
        except (JoseError, ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
            raise MalformedToken("It is not a JWT: send the access token as the service issued it.") from None
        return Signed(encoded, *_names(header), parts)

    def verified(self, signed: Signed, key: VerificationKey) -> VerifiedToken:
        """What the token says. Raises TokenRefused."""
        if signed.algorithm != key.algorithm:
            raise BadSignature("It is signed by another algorithm than its key's: it is forged.")
        signing_input, _, signature = signed.token.rpartition(b".")
        try:
            if signed.parts is None:
                good = key.verify(signing_input, urlsafe_b64decode(signature))
            else:
                good = jws.validate_compact(signed.parts, key.key, registry=self._registry)
            if not good:
                raise BadSignature("The key that it names did not sign it: it is forged, or was changed on its way.")
            header, _, payload = signing_input.partition(b".")
            claims = self._parsed(urlsafe_b64decode(payload))
        except (JoseError, ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
            raise MalformedToken("It is not a JWT access token: its parts can't be read.") from None
        if signed.parts is not None:
            self._remember(header, signed)
        return self._said(claims, key.kid)

    def _remember(self, header: bytes, signed: Signed) -> None:
        """A header need not be checked again that is the same byte for byte; only one whose signature was good."""
        if len(self._headers) >= MAX_HEADERS:
            self._headers.clear()
        self._headers[header] = (signed.kid, signed.algorithm)

    def _parsed(self, text: bytes) -> dict[str, Any]:
        """A JSON object. Raises ValueError, RecursionError."""
        written = text.decode()
        found, end = self._json.raw_decode(written)
        if type(found) is not dict or end != len(written):
            raise ValueError("it is not one JSON object")
        return found

    def _said(self, claims: dict[str, Any], kid: str) -> VerifiedToken:
        timed = {"iss": claims.get("iss"), "aud": claims.get("aud"), "exp": claims.get("exp"), "iat": claims.get("iat")}
        if "nbf" in claims:
            timed["nbf"] = claims["nbf"]
        try:
            self._checks.validate(timed)
            self._time.saw(max(claims["iat"], self._clock()), self._steady())
            expires = float(claims["exp"])
        except (JoseError, OverflowError) as error:
            raise self._refusal(error, claims) from None
        for name in NAMES:
            if type(claims.get(name)) is not str or not claims[name]:
                raise MalformedToken(f"It lacks what an access token has: {name}.")
        scope, epoch, audience = claims.get("scope", ""), claims.get("epoch"), claims["aud"]
        if type(scope) is not str or type(epoch) is not int or epoch < 0:
            raise MalformedToken("Its scope or its epoch is not what an access token has there.")
        scopes = frozenset(scope.split())
        audiences = (audience,) if type(audience) is str else tuple(audience)
        return VerifiedToken(_frozen(claims), scopes, audiences, expires, kid)

    def _refusal(self, error: Exception, claims: dict[str, Any]) -> TokenRefused:
        """The refusal for what joserfc found wrong with the claims."""
        claim = getattr(error, "claim", "")
        if isinstance(error, MissingClaimError):
            return MalformedToken(f"It lacks what an access token has: {claim}.")
        if isinstance(error, ExpiredTokenError):
            return self.expired(float(claims["exp"]))
        if claim == "iss" and isinstance(claims["iss"], str):
            return WrongIssuer(
                f"Its issuer is {claims['iss'][:200]!r}, and {self._issuer!r} is trusted here: set the verifier's"
                " issuer to the service's ARTSTORE_ISSUER, letter by letter, or refuse the caller for good."
            )
        if claim == "aud" and isinstance(claims["aud"], str | list):
            mine = " or ".join(map(repr, self._audiences))
            return WrongAudience(f"It is not for this service: the caller must ask for the audience {mine}.")
        if claim in BEGUN and isinstance(claims[claim], int | float) and math.isfinite(claims[claim]):
            return self._from_the_future(claim, float(claims[claim]), claims.get("iss"))
        return MalformedToken(f"Its claim {claim or 'exp'!r} is not what an access token has there.")

    def expired(self, exp: float) -> TokenRefused:
        """The refusal of a token of this `exp`."""
        own = self._clock()
        if exp > own - self.expiry_leeway_seconds:
            return self._gone_back()
        return TokenExpired(
            f"It expired {own - exp:.0f} s ago by this machine's clock ({_shown(own)}): get a new token. If that one is"
            " refused too, this machine's clock is fast, or the issuer's slow: set them (NTP)."
        )

    def _gone_back(self) -> ClocksDiffer:
        """The refusal of a token that is live by this machine's clock alone."""
        own, behind = self._clock(), self.now() - self._clock()
        return ClocksDiffer(
            f"This machine's clock ({_shown(own)}) is {behind:.0f} s behind what it or the issuer's tokens have shown"
            " before, by which the token has expired: set the clock (NTP). Where it is right now and was fast before,"
            " restart this service, or wait for an hour."
        )

    def _from_the_future(self, claim: str, begins: float, issuer: object) -> ClocksDiffer:
        own = self._clock()
        if issuer == self._issuer and begins <= own + MOST_AHEAD_SECONDS:
            self._time.saw(begins, self._steady())
        return ClocksDiffer(
            f"Its {claim} is {begins - own:.0f} s ahead of this machine's clock ({_shown(own)}), and"
            f" {self._leeway_seconds} s are allowed: this machine's clock and the issuer's differ. Set them (NTP)."
        )


def _names(header: dict[str, Any]) -> tuple[str, str]:
    """The `kid` and the `alg` of an access token's header. Raises MalformedToken."""
    if "crit" in header or "b64" in header:
        raise MalformedToken("Its header asks for an extension; this verifier has none (RFC 7515 §4.1.11).")
    kid, algorithm, kind = header.get("kid"), header.get("alg"), header.get("typ")
    if not isinstance(kind, str) or kind.lower() not in ACCEPTED_TYPES:
        raise MalformedToken("It is a JWT, but no access token: its `typ` is not at+jwt (RFC 9068 §4).")
    if not isinstance(kid, str) or not kid or not isinstance(algorithm, str):
        raise MalformedToken("Its header does not say which key has signed it.")
    return kid, algorithm


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which no member comes twice: which of them counts would depend on who reads it."""
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a member comes twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _frozen(value: dict[str, Any]) -> Mapping[str, Any]:
    """The same, unchangeable: a token that is remembered is shared by all who see it."""
    for name, each in value.items():
        if isinstance(each, list | dict):
            value[name] = _frozen_within(each)
    return MappingProxyType(value)


def _frozen_within(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen_within(each) for each in value)
    return _frozen(value) if isinstance(value, dict) else value


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
