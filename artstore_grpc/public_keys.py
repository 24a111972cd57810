"""Keys that accounts authenticate with (RFC 7523 §2.2): which ones are taken, and in what form they are kept.

A key is kept as the members that RFC 7638 §3.2 asks for, each in its one base64url form, so that one key has one
thumbprint however it was written. Which algorithm its assertions have is decided here, once: a verifier that believed
an assertion's own `alg` could be led to another one (RFC 8725 §3.1).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from artstore_grpc.errors import invalid
from artstore_grpc.model import PublicKey

FIELD = "public_keys"
MAX_PUBLIC_KEYS = 10
"""Of one account: two while keys change, and some for replicas with keys of their own."""
ALGORITHMS: dict[str, tuple[str, ...]] = {"RSA": ("RS256", "PS256"), "EC": ("ES256",), "OKP": ("EdDSA",)}
"""What each key type may sign with, the default first (RFC 7518 §3.1, RFC 8037 §3.1)."""
MEMBERS: dict[str, tuple[str, ...]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
"""RFC 7518 §6.2.1 and §6.3.1, RFC 8037 §2."""
TYPES: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
CURVES = {"EC": "P-256", "OKP": "Ed25519"}
RSA_BITS = (2048, 4096)
"""NIST SP 800-131A forbids less; more would let whoever registers a key decide what a check costs."""
EXPONENTS = (65_537, 2**32 - 1)
"""FIPS 186-5 §5.4 asks for at least 2^16; past 32 bits a check would cost what a signature does."""
KID = re.compile(r"[\x21-\x7e]{0,128}")
BASE64URL = re.compile(r"[A-Za-z0-9_-]{1,683}")
"""RFC 7515 §2, without padding; 683 characters hold 4,096 bits."""

SMALL_ORDER = frozenset(
    (
        bytes(32),
        b"\x01" + bytes(31),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        b"\xec" + b"\xff" * 30 + b"\x7f",
        b"\xed" + b"\xff" * 30 + b"\x7f",
        b"\xee" + b"\xff" * 30 + b"\x7f",
    )
)
"""Points of Ed25519, but for the sign, that have no private key and for which anybody can make a signature."""


def registered(offered: Sequence[Mapping[str, str]]) -> tuple[PublicKey, ...]:
    """Keys to be kept, from JWKs. Raises InvalidRequest, which names the key and the member."""
    if len(offered) > MAX_PUBLIC_KEYS:
        raise invalid(FIELD, f"must be at most {MAX_PUBLIC_KEYS}")
    keys = tuple(checked(document, f"{FIELD}[{number}]") for number, document in enumerate(offered))
    names = [name for key in keys for name in {key.thumbprint, key.kid} - {""}]
    if len(set(names)) < len(names):
        raise invalid(FIELD, "must have thumbprints and kids that differ")
    return keys


def checked(document: Mapping[str, str], field: str) -> PublicKey:
    """One key, from a JWK. Raises InvalidRequest."""
    kind = document.get("kty", "")
    if kind not in ALGORITHMS:
        raise invalid(f"{field}.kty", f"must be {', '.join(ALGORITHMS)}")
    algorithm = document.get("alg", "") or ALGORITHMS[kind][0]
    if algorithm not in ALGORITHMS[kind]:
        raise invalid(f"{field}.alg", f"must be {' or '.join(ALGORITHMS[kind])} for this kty")
    if not KID.fullmatch(document.get("kid", "")):
        raise invalid(f"{field}.kid", "must have at most 128 visible ASCII characters")
    _check_members(kind, document, field)
    if kind == "RSA":
        _check_rsa(document, field)
    key = _canonical(kind, document, field)
    members = {name: str(key.as_dict(private=False)[name]) for name in ("kty", *MEMBERS[kind])}
    return PublicKey(key.thumbprint(), document.get("kid", ""), algorithm, members)


def _check_members(kind: str, document: Mapping[str, str], field: str) -> None:
    for name in sorted(set().union(*MEMBERS.values())):
        value = document.get(name, "")
        if name not in MEMBERS[kind]:
            if value:
                raise invalid(f"{field}.{name}", "does not belong to this kty")
        elif name == "crv":
            if value != CURVES[kind]:
                raise invalid(f"{field}.crv", f"must be {CURVES[kind]} for this kty")
        elif not BASE64URL.fullmatch(value):
            raise invalid(f"{field}.{name}", "must be base64url without padding, of a key of this size")


def _canonical(kind: str, document: Mapping[str, str], field: str) -> RSAKey | ECKey | OKPKey:
    """The key, its members as its library writes them."""
    unusable = invalid(field, "is not a usable public key")
    kept = TYPES[kind]
    try:
        read = kept.import_key({name: document[name] for name in ("kty", *MEMBERS[kind])})
        key = kept.import_key(read.as_pem(private=False))
    except (JoseError, ValueError, TypeError, OverflowError):  # a point that isn't on the curve is a ValueError
        raise unusable from None
    if isinstance(key, OKPKey) and _of_small_order(key):
        raise unusable
    return key


def _of_small_order(key: OKPKey) -> bool:
    raw = decoded(str(key.as_dict(private=False)["x"]))
    return raw[:31] + bytes([raw[31] & 0x7F]) in SMALL_ORDER  # without the bit that is the sign


def _check_rsa(document: Mapping[str, str], field: str) -> None:
    """Before the library reads the key, which only warns of a small one."""
    modulus, exponent = (int.from_bytes(decoded(document[name])) for name in ("n", "e"))
    if not RSA_BITS[0] <= modulus.bit_length() <= RSA_BITS[1] or not modulus % 2:
        raise invalid(f"{field}.n", f"must be an RSA modulus of {RSA_BITS[0]} to {RSA_BITS[1]} bits")
    if not EXPONENTS[0] <= exponent <= EXPONENTS[1] or not exponent % 2:
        raise invalid(f"{field}.e", f"must be odd, {EXPONENTS[0]} to {EXPONENTS[1]}")


def decoded(value: str) -> bytes:
    """Base64url of the form above; a character that can't be its last is cut off."""
    return base64.urlsafe_b64decode(value[: len(value) - (len(value) % 4 == 1)] + "==")
