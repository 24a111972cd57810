"""Public keys that verify tokens: read from a key set (RFC 7517), each with the one algorithm that it is pinned to.

What can't be pinned is left out: a key without `alg` (RFC 8725 §3.1: the token must not choose), of a symmetric or
unknown `kty`, for another use than signatures, too short, or not only public. A set with two keys of one `kid`, or
with nothing that can be used, is refused as a whole. Where a set comes from is for others (key_sources.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from artstore.identity.refusals import KeySetError
from artstore.identity.v1 import token_service_pb2 as pb
from joserfc import jwk
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ALGORITHMS: dict[str, tuple[type[Key], str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), (RSAKey, "")),
    "ES256": (ECKey, "P-256"),
    "ES384": (ECKey, "P-384"),
    "ES512": (ECKey, "P-521"),
    "EdDSA": (OKPKey, "Ed25519"),
    "Ed25519": (OKPKey, "Ed25519"),
}
"""The signatures that are accepted, with the kind of key and the curve of each (RFC 7518 §3.1, RFC 8037 §3.1, RFC 9864
§2.2). No `none`, nothing symmetric."""
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""RFC 7518 §6: a key whose private half was published is nobody's."""
MIN_RSA_BITS = 2048
"""RFC 7518 §3.3."""
MAX_RSA_BITS = 8192
"""A signature by a longer one takes too long to verify."""
MAX_KEYS = 100
"""In one set: to read a key is slow. A service publishes two to four."""
MAX_KID = 256
"""Characters. A token's header holds at most 512."""
MAX_SHELVED = 2 * MAX_KEYS

Shown = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class VerificationKey:
    """A key, parsed and ready. Two are the same only where they are one object: a shelf makes one for one key."""

    kid: str
    algorithm: str
    key: Key
    verify: Callable[[bytes, bytes], bool]
    """Whether the second is a signature of the first, by joserfc's algorithm."""


class Verifying:
    """A joserfc key as its algorithms verify with it: what may be done with it was looked up once."""

    def __init__(self, key: Key) -> None:
        self._public = key.get_op_key("verify")
        self.curve_key_size = key.curve_key_size if isinstance(key, ECKey) else 0

    def get_op_key(self, operation: str) -> Any:
        return self._public


class KeyShelf:
    """Keys that were read before: the same JWK is the same object, however often and wherefrom it comes."""

    def __init__(self) -> None:
        self._keys: dict[Shown, VerificationKey] = {}
        self._messages: dict[str, tuple[pb.JsonWebKey, VerificationKey | None]] = {}

    def read(self, document: Any) -> dict[str, VerificationKey]:
        """The usable keys of a set by their `kid`. Raises KeySetError."""
        listed = document.get("keys") if isinstance(document, Mapping) else None
        if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
            raise KeySetError("It is not a key set: a JSON object with a list `keys` of objects is.", "NOT_A_KEY_SET")
        if len(listed) > MAX_KEYS:
            raise KeySetError(f"The key set has {len(listed)} keys; at most {MAX_KEYS} are read.", "TOO_MANY_KEYS")
        found: dict[str, VerificationKey] = {}
        seen: set[str] = set()
        left_out: list[str] = []
        for each in listed:
            kid = each.get("kid")
            if isinstance(kid, str) and kid in seen:
                raise KeySetError(f"Two keys of the set have the kid {kid[:80]!r}: which one signed?", "DUPLICATE_KID")
            try:
                key = self.key(each)
            except ValueError as error:
                left_out.append(str(error))
            else:
                found[key.kid] = key
            if isinstance(kid, str):
                seen.add(kid)
        if not found:
            why = "; ".join(left_out[:5]) or "it is empty"
            raise KeySetError(f"The key set holds no key that tokens can be verified with: {why}.", "NO_USABLE_KEY")
        return found

    def key(self, given: Mapping[str, Any]) -> VerificationKey:
        """One key, from its JWK. Raises ValueError, which says why it can't be used."""
        shown: Shown = frozenset((name, value) for name, value in given.items() if isinstance(value, str))
        known = self._keys.get(shown)
        if known is None:
            known = imported(given)
            if len(self._keys) >= MAX_SHELVED:
                self._keys.clear()
            self._keys[shown] = known
        return known

    def of_message(self, message: pb.JsonWebKey) -> VerificationKey | None:
        """A key of the trust feed; None for one that can't be used."""
        held, key = self._messages.get(message.kid, (None, None))
        if held is not message:
            try:
                key = self.key(as_jwk(message))
            except ValueError:
                key = None
            if len(self._messages) >= MAX_SHELVED:
                self._messages.clear()
            self._messages[message.kid] = (message, key)
        return key


def as_jwk(message: pb.JsonWebKey) -> dict[str, str]:
    """A key of the gRPC API in RFC 7517's form."""
    return {field.name: value for field, value in message.ListFields()}


def _verifies(operations: object) -> bool:
    """What `key_ops` say (RFC 7517 §4.3)."""
    return isinstance(operations, list) and "verify" in operations


def imported(given: Mapping[str, Any]) -> VerificationKey:
    """Reads a JWK. Raises ValueError."""
    kid, algorithm = given.get("kid"), given.get("alg")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise ValueError("a key has no kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise ValueError(f"{kid[:80]!r} names no signature algorithm in `alg` that is accepted here")
    if given.get("use", "sig") != "sig" or not _verifies(given.get("key_ops", ["verify"])):
        raise ValueError(f"{kid[:80]!r} is not for signatures")
    if PRIVATE_MEMBERS & given.keys():
        raise ValueError(f"{kid[:80]!r} is not only public")
    kind, curve = ALGORITHMS[algorithm]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # a short key is refused below
            key = jwk.import_key(dict(given))
            JWSRegistry.algorithms[algorithm].check_key(key)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise ValueError(f"{kid[:80]!r} can't be read") from None
    if not isinstance(key, kind) or (isinstance(key, ECKey | OKPKey) and key.curve_name != curve):
        raise ValueError(f"{kid[:80]!r} is not of the kind that {algorithm} signs with")
    if isinstance(key, RSAKey) and not MIN_RSA_BITS <= key.public_key.key_size <= MAX_RSA_BITS:
        raise ValueError(f"{kid[:80]!r} is an RSA key of {key.public_key.key_size} bits")
    verify: Callable[..., bool] = JWSRegistry.algorithms[algorithm].verify
    return VerificationKey(kid, algorithm, key, partial(verify, key=Verifying(key)))
