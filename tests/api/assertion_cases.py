"""Client assertions as tests make them: a service that signs, what RFC 7523 §3 allows, and each flaw."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.api.callers import GRANT, Api, role, unique
from tests.api.forgery import segment, unpadded
from tests.signers import ASSERTION_TYPE, Signer, asserted


@dataclass(frozen=True)
class Service:
    """An account without a secret, and what it signs with."""

    api: Api
    id: str
    client_id: str
    signer: Signer

    @property
    def issuer(self) -> str:
        return self.api.issuer

    def assertion(self, **claims: Any) -> str:
        return self.signer.assertion(self.client_id, claims.pop("audience", self.issuer), **claims)

    def issue(self, assertion: str = "", **fields: Any) -> tokens_pb.IssueTokenResponse:
        return issue(self.api, assertion or self.assertion(), **fields)


def credentials(assertion: str) -> dict[str, str]:
    return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}


def issue(api: Api, assertion: str, **fields: Any) -> tokens_pb.IssueTokenResponse:
    request = tokens_pb.IssueTokenRequest(grant_type=GRANT, **(credentials(assertion) | fields))
    response: tokens_pb.IssueTokenResponse = api.door.call("IssueToken", request)
    return response


def create(api: Api, *signers: Signer, name: str = "") -> pb.CreateServiceAccountResponse:
    """An account with these keys and no secret; always over gRPC's door or the one that the test has."""
    keys = [signer.public for signer in signers]
    account = pb.ServiceAccount(name=name or unique(), role=role("user"), public_keys=keys)
    request = pb.CreateServiceAccountRequest(service_account=account, without_secret=True)
    response: pb.CreateServiceAccountResponse = api.door.call("CreateServiceAccount", request, api.authorization)
    return response


def made(api: Api, signer: Signer, *others: Signer) -> Service:
    account = create(api, signer, *others).service_account
    return Service(api, account.id, account.client_id, signer)


ACCEPTED: dict[str, Callable[[Service], str]] = {
    "aud is the token endpoint": lambda s: s.assertion(audience=f"{s.issuer}/oauth2/token"),
    "aud is a list of one": lambda s: s.assertion(audience=[s.issuer]),
    "the longest exp": lambda s: s.assertion(exp=int(time.time()) + 600),
    "the oldest iat": lambda s: s.assertion(iat=int(time.time()) - 3500),
    "iat within the leeway": lambda s: s.assertion(iat=int(time.time()) + 20),
    "nbf within the leeway": lambda s: s.assertion(nbf=int(time.time()) + 20),
    "no iat": lambda s: s.assertion(iat=None),
    "a fraction of a second": lambda s: s.assertion(exp=time.time() + 30.5),
    "the longest jti": lambda s: s.assertion(jti=unique("x" * 200)[:213].ljust(255, "x")),
    "an odd jti": lambda s: s.assertion(jti=unique("\ud800 é \0")),
    "kid is the thumbprint": lambda s: s.assertion(header={"kid": s.signer.thumbprint}),
    "kid is the owner's": lambda s: s.assertion(header={"kid": s.signer.kid}),
    "no typ": lambda s: s.assertion(header={"typ": None}),
    "typ of RFC 7523's successor": lambda s: s.assertion(header={"typ": "client-authentication+jwt"}),
    "an unknown claim": lambda s: s.assertion(extra={"a": [1]}),
}


# Refused: RFC 7523 §3 point by point, then RFC 8725


def by_hmac(service: Service, key: bytes) -> str:
    """HS256 with what everybody may know as the secret (RFC 8725 §2.1)."""
    claims = segment(asserted(service.client_id, service.issuer))
    signed = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{claims}"
    digest = hmac.digest(key, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def pem(service: Service) -> bytes:
    key: Any = service.signer.key
    encoded: bytes = key.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def unsigned(service: Service, algorithm: str) -> str:
    return f"{segment({'alg': algorithm})}.{segment(asserted(service.client_id, service.issuer))}."


def altered(service: Service) -> str:
    header, _, signature = service.assertion().split(".")
    return f"{header}.{segment(asserted(service.client_id, service.issuer))}.{signature}"


def now() -> int:
    return int(time.time())


def raw_claims(service: Service, text: str) -> str:
    """Claims as JSON that Python reads though nobody should write it."""
    claims = json.dumps(asserted(service.client_id, service.issuer))[:-1] + f", {text}}}"
    return service.signer.sign_text(claims)


REFUSED: dict[str, Callable[[Service], str]] = {
    "3.1 no iss": lambda s: s.assertion(iss=None),
    "3.1 another iss": lambda s: s.assertion(iss="sa_dev_nobody_00000000"),
    "3.1 iss is the issuer": lambda s: s.assertion(iss=s.issuer),
    "3.2 no sub": lambda s: s.assertion(sub=None),
    "3.2 the account's id as sub": lambda s: s.assertion(sub=s.id, iss=s.id),
    "3.2 sub in another case": lambda s: s.assertion(sub=s.client_id.upper(), iss=s.client_id.upper()),
    "3.2 sub is a number": lambda s: s.assertion(sub=1, iss=1),
    "3.2 sub and iss of nobody": lambda s: s.assertion(sub="sa_dev_nobody_00000000", iss="sa_dev_nobody_00000000"),
    "3.3 no aud": lambda s: s.assertion(aud=None),
    "3.3 another audience": lambda s: s.assertion(audience="https://other.test"),
    "3.3 the default audience of tokens": lambda s: s.assertion(audience="artstore"),
    "3.3 another endpoint": lambda s: s.assertion(audience=f"{s.issuer}/oauth2/introspect"),
    "3.3 a slash more": lambda s: s.assertion(audience=f"{s.issuer}/"),
    "3.3 an audience beside ours": lambda s: s.assertion(audience=[s.issuer, "https://other.test"]),
    "3.3 both of ours": lambda s: s.assertion(audience=[s.issuer, f"{s.issuer}/oauth2/token"]),
    "3.3 an empty list": lambda s: s.assertion(audience=[]),
    "3.3 aud is an object": lambda s: s.assertion(audience={s.issuer: 1}),
    "3.4 no exp": lambda s: s.assertion(exp=None),
    "3.4 expired": lambda s: s.assertion(exp=now() - 1),
    "3.4 exp too far ahead": lambda s: s.assertion(exp=now() + 700),
    "3.4 exp far beyond any time": lambda s: s.assertion(exp=10**30),
    "3.4 exp is text": lambda s: s.assertion(exp=str(now() + 60)),
    "3.4 exp is true": lambda s: s.assertion(exp=True),
    "3.4 exp is NaN": lambda s: raw_claims(s, '"exp": NaN'),
    "3.4 exp is Infinity": lambda s: raw_claims(s, '"exp": Infinity'),
    "3.5 nbf to come": lambda s: s.assertion(nbf=now() + 120),
    "3.6 iat to come": lambda s: s.assertion(iat=now() + 120),
    "3.6 iat of long ago": lambda s: s.assertion(iat=now() - 3700),
    "3.6 iat is text": lambda s: s.assertion(iat="now"),
    "3.7 no jti": lambda s: s.assertion(jti=None),
    "3.7 an empty jti": lambda s: s.assertion(jti=""),
    "3.7 a long jti": lambda s: s.assertion(jti="x" * 256),
    "3.7 jti is a number": lambda s: s.assertion(jti=7),
    "3.9 alg none": lambda s: unsigned(s, "none"),
    "3.9 alg None": lambda s: unsigned(s, "None"),
    "3.9 no signature": lambda s: s.assertion().rpartition(".")[0] + ".",
    "3.9 other claims under the signature": altered,
    "3.9 another key": lambda s: Signer(number=9).assertion(s.client_id, s.issuer),
    "3.9 another key under the real kid": lambda s: Signer(number=9).assertion(
        s.client_id, s.issuer, header={"kid": s.signer.thumbprint}
    ),
    "3.9 a key of its own in the header": lambda s: Signer(number=9).assertion(
        s.client_id, s.issuer, header={"jwk": Signer(number=9).key.as_dict(private=False)}
    ),
    "HS256 by the public key in PEM": lambda s: by_hmac(s, pem(s)),
    "HS256 by a coordinate": lambda s: by_hmac(s, unpadded(str(s.signer.key.as_dict(private=False)["x"]))),
    "HS256 by nothing": lambda s: by_hmac(s, b""),
    "crit": lambda s: s.assertion(header={"crit": ["exp"], "exp": 1}),
    "crit of b64": lambda s: s.assertion(header={"crit": ["b64"], "b64": True}),
    "crit of nothing": lambda s: s.assertion(header={"crit": []}),
    "kid that nobody has": lambda s: s.assertion(header={"kid": "nobody"}),
    "an empty kid": lambda s: s.assertion(header={"kid": ""}),
    "kid is a number": lambda s: s.assertion(header={"kid": 1}),
    "typ of an access token": lambda s: s.assertion(header={"typ": "at+jwt"}),
    "typ of another kind": lambda s: s.assertion(header={"typ": "logout+jwt"}),
    "a header that is text": lambda s: f"{segment('alg')}.{s.assertion().split('.', 1)[1]}",  # type: ignore[arg-type]
    "a header that is a list": lambda s: f"{segment(['alg'])}.{s.assertion().split('.', 1)[1]}",  # type: ignore[arg-type]
    "claims that are a list": lambda s: s.signer.sign_text('["sub"]'),
    "claims that are deep": lambda s: s.signer.sign_text("[" * 3000),
    "claims that are no JSON": lambda s: s.signer.sign_text("sub"),
    "two parts": lambda s: s.assertion().rpartition(".")[0],
    "five parts": lambda s: s.assertion() + ".a.b",
    "white space": lambda s: s.assertion().replace(".", ". ", 1),
    "too long": lambda s: s.assertion(extra="x" * 8000),
    "no JWT": lambda s: "x",
}


UNREADABLE = {
    "3.2 no sub",
    "3.2 sub is a number",
    "a header that is text",
    "a header that is a list",
    "claims that are a list",
    "claims that are deep",
    "claims that are no JSON",
    "two parts",
    "five parts",
    "white space",
    "too long",
    "no JWT",
}
"""Flaws that leave no client_id to count a failure by, unless it is sent beside."""
