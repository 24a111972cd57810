"""Client assertions: a JWT that an account signs with a key of its own, in place of a secret (RFC 7523 §2.2 and §3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from artstore.identity.assertions import ASSERTION_TYPE
from artstore.identity.testing.accounts import Account, Accounts
from artstore.identity.testing.keys import Pinned
from artstore.identity.testing.public_keys import imported
from artstore.identity.testing.refusals import invalid, refused
from artstore.identity.v1 import service_account_service_pb2 as pb
from joserfc import jws, jwt
from joserfc.errors import InvalidClaimError, JoseError

MAX_LENGTH = 8 * 1024
MAX_LIFETIME = timedelta(minutes=10)
MAX_AGE = timedelta(hours=1)
LEEWAY = timedelta(seconds=30)
MAX_JTI = 255
TYPES = ("jwt", "client-authentication+jwt")
BEGUN = ("iat", "nbf")


class Begun(jwt.JWTClaimsRegistry):
    """Since when an assertion is valid: not yet to come, and not of long ago."""

    def validate_iat(self, value: Any) -> None:
        super().validate_iat(value)
        if value < self.now - MAX_AGE.total_seconds():
            raise InvalidClaimError("iat")


class Proof(jwt.JWTClaimsRegistry):
    """The other claims, where RFC 7523 §3 leaves the bounds to the service."""

    def validate_aud(self, value: Any) -> None:
        """One audience, alone: an assertion for others too is one that they could use here."""
        audience = value[0] if isinstance(value, list) and len(value) == 1 else value
        if not isinstance(audience, str):
            raise InvalidClaimError("aud")
        self.check_value("aud", audience)

    def validate_exp(self, value: Any) -> None:
        super().validate_exp(value)
        if value > self.now + (MAX_LIFETIME + LEEWAY).total_seconds():
            raise InvalidClaimError("exp")

    def validate_jti(self, value: Any) -> None:
        super().validate_jti(value)
        if len(value) > MAX_JTI:
            raise InvalidClaimError("jti")


class Assertions:
    """Verifies assertions for one authority, each once."""

    def __init__(self, accounts: Accounts, issuer: str, now: Callable[[], datetime]) -> None:
        self._accounts = accounts
        self._audiences = [issuer, f"{issuer}/oauth2/token"]
        self._now = now
        self._used: set[tuple[str, str]] = set()

    def prove(self, kind: str, text: str, client_id: str) -> Account:
        """The account that signed."""
        if kind != ASSERTION_TYPE:
            raise invalid("client_assertion_type", f"must be {ASSERTION_TYPE}")
        try:
            account, jti = self._proved(text, client_id)
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise refused("INVALID_CLIENT", cause=f"assertion: {type(error).__name__}: {error}") from None
        if (account.id, jti) in self._used:
            raise refused("INVALID_CLIENT", cause=f"assertion was used before: {account.client_id}")
        self._used.add((account.id, jti))
        return account

    def _proved(self, text: str, client_id: str) -> tuple[Account, str]:
        if len(text) > MAX_LENGTH:
            raise ValueError(f"longer than {MAX_LENGTH} characters")
        signed = jws.extract_compact(text.encode())
        header, claims = signed.headers(), json.loads(signed.payload or b"")
        if not isinstance(header, dict):  # JSON, but no object: the library lets it pass
            raise ValueError("a header that is no object")
        account = next((each for each in self._accounts if each.client_id == claims["sub"]), None)
        if account is None or client_id not in ("", account.client_id):
            raise ValueError("sub is no account's client_id, or not the request's")
        if "crit" in header or str(header.get("typ", TYPES[0])).lower().removeprefix("application/") not in TYPES:
            raise ValueError("crit is present, or typ is not an assertion's")
        if not any(verifies(signed, key) for key in account.public_keys if fits(key, header)):
            raise ValueError("no registered key made this assertion")
        self._check(claims, account)
        return account, claims["jti"]

    def _check(self, claims: dict[str, Any], account: Account) -> None:
        own: jwt.ClaimsOption = {"essential": True, "value": account.client_id}
        ours: jwt.ClaimsOption = {"essential": True, "values": self._audiences}
        needed: jwt.ClaimsOption = {"essential": True}
        begun = Begun(now=self._seconds, leeway=int(LEEWAY.total_seconds()))
        begun.validate({name: claims[name] for name in BEGUN if name in claims})
        proof = Proof(now=self._seconds, iss=own, sub=own, aud=ours, exp=needed, jti=needed)
        proof.validate({name: value for name, value in claims.items() if name not in BEGUN})

    def _seconds(self) -> int:
        return int(self._now().timestamp())


def fits(key: pb.PublicKey, header: dict[str, Any]) -> bool:
    """Whether a key may have signed: by its algorithm, and by `kid` if there is one."""
    names = {key.thumbprint, key.kid} - {""}
    return bool(header["alg"] == key.alg and ("kid" not in header or header["kid"] in names))


def verifies(signed: jws.CompactSignature, key: pb.PublicKey) -> bool:
    try:
        return jws.validate_compact(signed, imported(key), registry=Pinned(key.alg))
    except (JoseError, ValueError, TypeError):
        return False
