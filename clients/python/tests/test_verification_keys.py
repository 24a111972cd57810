"""What a key set is: keys that can be pinned are taken, others left out, and what is no set is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from artstore.identity import (
    KeySetError,
)
from artstore.identity.v1 import token_service_pb2 as pb
from artstore.identity.verification_keys import KeyShelf
from issuer import document, oct_key, pair, public

REAL, OTHER = pair(), pair("RS256", 1)

LEFT_OUT: dict[str, dict[str, Any]] = {
    "no alg": public(OTHER, alg=None),
    "no kid": public(OTHER, kid=None),
    "an empty kid": public(OTHER, kid=""),
    "a kid that is a number": public(OTHER, kid=5),
    "a kid of a kilobyte": public(OTHER, kid="k" * 1000),
    "symmetric": oct_key(),
    "symmetric, by another alg": oct_key() | {"alg": "RS256"},
    "RSA, for HS256": public(OTHER, alg="HS256"),
    "alg none": public(OTHER, alg="none"),
    "RSA, for ES256": public(OTHER, alg="ES256"),
    "P-256, for ES384": public(pair("ES256"), alg="ES384"),
    "P-256, for RS256": public(pair("ES256"), alg="RS256"),
    "secp256k1": public(pair("ES256"), crv="secp256k1"),
    "an unknown kty": public(OTHER, kty="PQC"),
    "for encryption": public(OTHER, use="enc"),
    "for encryption by key_ops": public(OTHER, use=None, key_ops=["encrypt"]),
    "with its private half": OTHER.as_dict(private=True),
    "no modulus": public(OTHER, n=None),
    "a modulus that is a number": public(OTHER, n=5),
    "512 bits": public(OTHER, n="3" + "A" * 84 + "E"),
    "a point that is on no curve": public(pair("ES256"), x="AAAA" * 10 + "AAA"),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_keys_that_can_not_be_pinned_are_left_out(what: str) -> None:
    """Of a set with a good key the good one is used; alone, the set is refused, with the reason."""
    assert KeyShelf().read(document(LEFT_OUT[what], REAL)).keys() == {REAL.kid}
    with pytest.raises(KeySetError, match="holds no key") as caught:
        KeyShelf().read(document(LEFT_OUT[what]))
    assert caught.value.reason == "NO_USABLE_KEY"


NO_SETS: dict[str, tuple[Any, str]] = {
    "a list": ([], "NOT_A_KEY_SET"),
    "null": (None, "NOT_A_KEY_SET"),
    "an empty object": ({}, "NOT_A_KEY_SET"),
    "keys that are an object": ({"keys": {}}, "NOT_A_KEY_SET"),
    "keys that are words": ({"keys": ["a"]}, "NOT_A_KEY_SET"),
    "an error": ({"error": "server_error"}, "NOT_A_KEY_SET"),
    "no keys": ({"keys": []}, "NO_USABLE_KEY"),
    "one kid twice": (document(REAL, public(OTHER, kid=REAL.kid)), "DUPLICATE_KID"),
    "one key twice": (document(REAL, REAL), "DUPLICATE_KID"),
    "a kid twice, once unusable": (document(REAL, public(OTHER, kid=REAL.kid, alg=None)), "DUPLICATE_KID"),
    "a thousand keys": (document(*[public(REAL, kid=str(number)) for number in range(1000)]), "TOO_MANY_KEYS"),
}


@pytest.mark.parametrize("what", NO_SETS)
def test_what_is_no_key_set(what: str) -> None:
    """A clear exception with a stable reason."""
    given, reason = NO_SETS[what]
    if given is None:
        given = "null"
    with pytest.raises(KeySetError) as caught:
        KeyShelf().read(given)
    assert caught.value.reason == reason


def test_one_key_is_one_object() -> None:
    """Read again, or from another place, it is the same: what it verified stays so. Another one of its kid isn't."""
    shelf = KeyShelf()
    first = shelf.read(document(REAL))[REAL.kid]
    assert shelf.read(json.loads(json.dumps(document(OTHER, REAL))))[REAL.kid] is first
    assert shelf.of_message(pb.JsonWebKey(**public(REAL))) is first
    assert shelf.read(document(public(OTHER, kid=REAL.kid)))[REAL.kid] is not first
