"""Services that authenticate by a key of their own: key pairs, and the assertions that they make (RFC 7523 §2.2)."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import jwt as pyjwt
from artstore.identity.v1 import service_account_service_pb2 as pb
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
Pair = RSAKey | ECKey | OKPKey


class Anything(JWSRegistry):
    """Signs with whatever the header says; the library's own would warn of the name EdDSA."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]

    def check_header(self, header: Any) -> None:
        """Whatever a test puts there."""


@functools.cache
def pair(algorithm: str, number: int = 0) -> Pair:
    """A key pair; another number is another one."""
    if algorithm == "EdDSA":
        return OKPKey.generate_key("Ed25519")
    return ECKey.generate_key("P-256") if algorithm == "ES256" else RSAKey.generate_key(2048)


@dataclass(frozen=True)
class Signer:
    """A private key, and the algorithm that it signs with."""

    algorithm: str = "ES256"
    number: int = 0
    kid: str = ""

    @property
    def key(self) -> Pair:
        return pair(self.algorithm, self.number)

    @property
    def thumbprint(self) -> str:
        return self.key.thumbprint()

    @property
    def public(self) -> pb.PublicKey:
        """The key as it is registered."""
        members: Any = self.key.as_dict(private=False)
        return pb.PublicKey(alg=self.algorithm, kid=self.kid, **members)

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A JWS by joserfc; a header or claim of None is left out."""
        return self.sign_text(json.dumps(present(claims)), **header)

    def sign_text(self, text: str, **header: Any) -> str:
        """As `sign`, of any text."""
        protected = present({"alg": self.algorithm, "typ": "JWT"} | header)
        return jws.serialize_compact(protected, text, self.key, registry=Anything(algorithms=[protected["alg"]]))

    def sign_by_pyjwt(self, claims: dict[str, Any], **header: Any) -> str:
        """The same by PyJWT."""
        return pyjwt.encode(present(claims), self.key.as_pem(private=True), self.algorithm, headers=header)

    def assertion(
        self, client_id: str, audience: Any, *, header: dict[str, Any] | None = None, pyjwt: bool = False, **claims: Any
    ) -> str:
        """An assertion of now, for a minute, but for what a test changes."""
        sign = self.sign_by_pyjwt if pyjwt else self.sign
        return sign(asserted(client_id, audience) | claims, **(header or {}))


def asserted(client_id: str, audience: Any) -> dict[str, Any]:
    """The claims of RFC 7523 §3."""
    now = int(time.time())
    return {"iss": client_id, "sub": client_id, "aud": audience, "iat": now, "exp": now + 60, "jti": uuid4().hex}


def present(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not None}
