"""The authority's signing keys: real ones, by joserfc, made once per process, since an RSA key takes 0.03 to 0.5 s.

A pair serves one authority at a time, so that no authority takes another's tokens for its own. What joserfc leaves to
its caller is done here as the service does it: the algorithm is pinned per key, `crit` is refused, `typ` is checked.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from artstore.identity.v1 import token_service_pb2 as pb
from joserfc import jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

TOKEN_TYPE = "at+jwt"
ACCEPTED_TYPES = (TOKEN_TYPE, "application/at+jwt")
"""RFC 9068 §4."""
LEEWAY_SECONDS = 30
"""For `iat` and `nbf`; `exp` gets none."""
BEGUN = ("iat", "nbf")
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "EdDSA")


class BadToken(Exception):
    """A token that isn't a live one of this authority; the message says why."""


class Pinned(JWSRegistry):
    """One algorithm and no other. joserfc's own would also warn at each use of the name EdDSA (RFC 9864)."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm])
        self._pinned = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._pinned:
            raise UnsupportedAlgorithmError(f"not {self._pinned}")
        return self.algorithms[name]


class Pairs:
    """Key pairs that were made in this process, and which of them no authority has now."""

    def __init__(self) -> None:
        self._spare: dict[str, list[Key]] = {}
        self._lock = threading.Lock()

    def take(self, algorithm: str) -> Key:
        with self._lock:
            spare = self._spare.get(algorithm)
            if spare:
                return spare.pop()
        return generate(algorithm)

    def give_back(self, key: Key) -> None:
        with self._lock:
            self._spare.setdefault(str(key.alg), []).append(key)


PAIRS = Pairs()
"""This process's."""


@functools.cache
def foreign_pair(algorithm: str) -> Key:
    """A pair that no authority ever has."""
    return generate(algorithm)


def generate(algorithm: str) -> Key:
    """A new key pair; its `kid` is its RFC 7638 thumbprint."""
    options: Any = {"alg": algorithm, "use": "sig"}
    if algorithm == "EdDSA":
        return OKPKey.generate_key("Ed25519", options, auto_kid=True)
    if algorithm == "ES256":
        return ECKey.generate_key("P-256", options, auto_kid=True)
    return RSAKey.generate_key(2048, options, auto_kid=True)


def signed(key: Key, claims: dict[str, Any], header: dict[str, Any]) -> str:
    """A compact JWS of claims (RFC 7515 §7.1); a header of None is left out."""
    whole = {"alg": str(key.alg), "kid": key.kid} | header
    return jwt.encode(present(whole), claims, key, registry=Pinned(str(key.alg)))


def present(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}


@dataclass
class SigningKey:
    """A pair, and where it is in its life."""

    pair: Key
    state: pb.KeyState.ValueType

    @property
    def kid(self) -> str:
        return str(self.pair.kid)

    def public(self) -> pb.JsonWebKey:
        members = {name: value for name, value in self.pair.as_dict(private=False).items() if isinstance(value, str)}
        return pb.JsonWebKey(
            **{name: value for name, value in members.items() if name in pb.JsonWebKey.DESCRIPTOR.fields_by_name}
        )

    def trusted(self) -> pb.TrustedKey:
        """The key as verifiers are told of it; of one that is revoked only the `kid`."""
        revoked = self.state == pb.KEY_STATE_REVOKED
        return pb.TrustedKey(key=pb.JsonWebKey(kid=self.kid) if revoked else self.public(), state=self.state)


class Keyring:
    """The keys of one authority: one signs; those that did before stay published until they are revoked."""

    def __init__(
        self, algorithm: str, issuer: str, now: Callable[[], datetime], changed: Callable[[SigningKey], None]
    ) -> None:
        self._algorithm = algorithm
        self._now = now
        self._changed = changed
        self._keys: list[SigningKey] = []
        needed: jwt.ClaimsOption = {"essential": True}
        ours: jwt.ClaimsOption = {"essential": True, "value": issuer}
        self._begun = jwt.JWTClaimsRegistry(now=self._seconds, leeway=LEEWAY_SECONDS)
        self._rest = jwt.JWTClaimsRegistry(now=self._seconds, iss=ours, sub=needed, aud=needed, exp=needed, jti=needed)

    @property
    def active(self) -> SigningKey:
        return next(key for key in self._keys if key.state == pb.KEY_STATE_ACTIVE)

    def published(self) -> list[SigningKey]:
        """The keys whose tokens are good, the oldest first."""
        return [key for key in self._keys if key.state != pb.KEY_STATE_REVOKED]

    def rotate(self) -> SigningKey:
        """Has a new key sign from now on."""
        made = SigningKey(PAIRS.take(self._algorithm), pb.KEY_STATE_ACTIVE)
        for key in self.published():
            if key.state == pb.KEY_STATE_ACTIVE:
                key.state = pb.KEY_STATE_RETIRED
                self._changed(key)
        self._keys.append(made)
        self._changed(made)
        return made

    def revoke(self, kid: str) -> None:
        """Ends a key and all that it signed; where it is the one that signs, a new one does. Raises KeyError."""
        found = next((key for key in self.published() if key.kid == kid), None)
        if found is None:
            raise KeyError(kid)
        if found.state == pb.KEY_STATE_ACTIVE:
            self.rotate()
        found.state = pb.KEY_STATE_REVOKED
        self._changed(found)

    def give_back(self) -> None:
        """Ends this authority's use of its keys."""
        for key in self._keys:
            PAIRS.give_back(key.pair)
        self._keys.clear()

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token that this authority signed and that is within its time. Raises BadToken."""
        try:
            claims = jwt.decode(token, self._key_for, registry=Pinned(self._algorithm)).claims
            self._begun.validate({name: claims[name] for name in BEGUN})
            self._rest.validate({name: value for name, value in claims.items() if name not in BEGUN})
        except (JoseError, ValueError, TypeError, KeyError, UnicodeError, RecursionError) as error:
            raise BadToken(f"{type(error).__name__}: {error}") from None
        return claims

    def _key_for(self, token: Any) -> Key:
        header = token.headers()
        found = next((key for key in self.published() if key.kid == header.get("kid")), None)
        if found is None or header.get("alg") != self._algorithm:
            raise BadToken("unknown kid, or not its key's algorithm")
        if "crit" in header or str(header.get("typ", "")).lower() not in ACCEPTED_TYPES:
            raise BadToken("crit is present, or typ is not an access token's")
        return found.pair

    def _seconds(self) -> int:
        return int(self._now().timestamp())
