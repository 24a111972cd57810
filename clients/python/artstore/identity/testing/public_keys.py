"""Keys that accounts authenticate with (RFC 7523 §2.2): which ones are taken, and in what form they are kept."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable

from artstore.identity.testing.refusals import invalid
from artstore.identity.v1 import service_account_service_pb2 as pb
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

MAX_PUBLIC_KEYS = 10
ALGORITHMS: dict[str, tuple[str, ...]] = {"RSA": ("RS256", "PS256"), "EC": ("ES256",), "OKP": ("EdDSA",)}
"""What assertions may be signed with by each type of key, the default first."""
MEMBERS: dict[str, tuple[str, ...]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
"""RFC 7518 §6.2.1 and §6.3.1, RFC 8037 §2."""
CURVES = {"EC": "P-256", "OKP": "Ed25519"}
TYPES: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
KID = re.compile(r"[\x21-\x7e]{0,128}")
BASE64URL = re.compile(r"[A-Za-z0-9_-]{1,683}")
RSA_BITS = (2048, 4096)
EXPONENTS = (65_537, 2**32 - 1)


def registered(offered: Iterable[pb.PublicKey]) -> tuple[pb.PublicKey, ...]:
    """Keys to be kept, each with its thumbprint and its algorithm."""
    given = tuple(offered)
    if len(given) > MAX_PUBLIC_KEYS:
        raise invalid("public_keys", f"must be at most {MAX_PUBLIC_KEYS}")
    keys = tuple(checked(each, f"public_keys[{number}]") for number, each in enumerate(given))
    names = [name for key in keys for name in {key.thumbprint, key.kid} - {""}]
    if len(set(names)) < len(names):
        raise invalid("public_keys", "must have thumbprints and kids that differ")
    return keys


def checked(offered: pb.PublicKey, field: str) -> pb.PublicKey:
    kind = offered.kty
    if kind not in ALGORITHMS:
        raise invalid(f"{field}.kty", f"must be {', '.join(ALGORITHMS)}")
    algorithm = offered.alg or ALGORITHMS[kind][0]
    if algorithm not in ALGORITHMS[kind]:
        raise invalid(f"{field}.alg", f"must be {' or '.join(ALGORITHMS[kind])} for this kty")
    if not KID.fullmatch(offered.kid):
        raise invalid(f"{field}.kid", "must have at most 128 visible ASCII characters")
    check_members(offered, field)
    key = canonical(offered, field)
    members = {name: str(key.as_dict(private=False)[name]) for name in ("kty", *MEMBERS[kind])}
    return pb.PublicKey(thumbprint=key.thumbprint(), kid=offered.kid, alg=algorithm, **members)


def check_members(offered: pb.PublicKey, field: str) -> None:
    for name in sorted(set().union(*MEMBERS.values())):
        value = getattr(offered, name)
        if name not in MEMBERS[offered.kty]:
            if value:
                raise invalid(f"{field}.{name}", "does not belong to this kty")
        elif name == "crv":
            if value != CURVES[offered.kty]:
                raise invalid(f"{field}.crv", f"must be {CURVES[offered.kty]} for this kty")
        elif not BASE64URL.fullmatch(value):
            raise invalid(f"{field}.{name}", "must be base64url without padding, of a key of this size")
    if offered.kty == "RSA":
        check_rsa(offered, field)


def check_rsa(offered: pb.PublicKey, field: str) -> None:
    modulus, exponent = number(offered.n), number(offered.e)
    if not RSA_BITS[0] <= modulus.bit_length() <= RSA_BITS[1] or not modulus % 2:
        raise invalid(f"{field}.n", f"must be an RSA modulus of {RSA_BITS[0]} to {RSA_BITS[1]} bits")
    if not EXPONENTS[0] <= exponent <= EXPONENTS[1] or not exponent % 2:
        raise invalid(f"{field}.e", f"must be odd, {EXPONENTS[0]} to {EXPONENTS[1]}")


def number(value: str) -> int:
    """Base64url of the form above; a character that can't be its last is cut off."""
    return int.from_bytes(base64.urlsafe_b64decode(value[: len(value) - (len(value) % 4 == 1)] + "=="))


def canonical(offered: pb.PublicKey, field: str) -> RSAKey | ECKey | OKPKey:
    """The key, its members as its library writes them: one key has one thumbprint."""
    try:
        return TYPES[offered.kty].import_key(imported(offered).as_pem(private=False))
    except (JoseError, ValueError, TypeError, OverflowError):
        raise invalid(field, "is not a usable public key") from None


def imported(key: pb.PublicKey) -> RSAKey | ECKey | OKPKey:
    """A key, to verify with."""
    return TYPES[key.kty].import_key({name: getattr(key, name) for name in ("kty", *MEMBERS[key.kty])})
