"""Client assertions (private_key_jwt, RFC 7523): what authenticates an account by its key, and what doesn't."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.api.callers import GRANT, Api, role, unique
from tests.api.conftest import first_account
from tests.api.doors import refused
from tests.api.forgery import parts, segment, unpadded
from tests.installation import Account, Installation
from tests.signers import ALGORITHMS, ASSERTION_TYPE, Signer, asserted


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


@pytest.fixture
def root(grpc_admin: Api) -> Api:
    """The administrator over gRPC: verification is behind every door alike."""
    return grpc_admin


@pytest.fixture
def service_of(root: Api) -> Callable[..., Service]:
    return lambda *signers: made(root, *(signers or (Signer(),)))


# Accepted


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # joserfc's word, for the doors' own checks
@pytest.mark.parametrize("pyjwt", [False, True], ids=["joserfc", "PyJWT"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm(admin: Api, algorithm: str, pyjwt: bool) -> None:
    """An assertion by each algorithm, of either library, gets a token over every door; no secret expires with it."""
    service = made(admin, Signer(algorithm))
    issued = service.issue(service.assertion(pyjwt=pyjwt))
    assert parts(issued.access_token)[1]["client_id"] == service.client_id
    assert not issued.HasField("secret_expire_time")


def test_every_method(admin: Api) -> None:
    """All three methods that authenticate clients take assertions, over every door."""
    service = made(admin, Signer())
    token = service.issue().access_token
    ask = tokens_pb.IntrospectTokenRequest(token=token, **credentials(service.assertion()))
    assert admin.door.call("IntrospectToken", ask).active
    admin.door.call("RevokeToken", tokens_pb.RevokeTokenRequest(token=token, **credentials(service.assertion())))
    ask = tokens_pb.IntrospectTokenRequest(token=token, **credentials(service.assertion()))
    assert not admin.door.call("IntrospectToken", ask).active


def test_the_legacy_route(service: Installation, root: Api) -> None:
    """The older token endpoint takes assertions too, as a form and as JSON."""
    signing = made(root, Signer())
    url = f"{service.url}/api/v1/auth/token"
    for way in ("data", "json"):
        document = {"grant_type": GRANT, **credentials(signing.assertion())}
        answer = httpx.post(url, **{way: document})  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text


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


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(service_of: Callable[..., Service], case: str) -> None:
    """What RFC 7523 §3 allows is taken."""
    service = service_of(Signer(kid="my key"[3:]))
    assert service.issue(ACCEPTED[case](service)).access_token


def test_client_id_may_be_sent(service_of: Callable[..., Service]) -> None:
    """RFC 7521 §4.2: client_id is optional, and must be the assertion's."""
    service = service_of()
    assert service.issue(client_id=service.client_id).access_token
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        service.issue(client_id=service_of(Signer(number=1)).client_id)


def test_without_kid_every_key_is_tried(root: Api) -> None:
    """An account with several keys of one algorithm needs no kid."""
    signers = [Signer(number=number) for number in range(3)]
    service = made(root, *signers)
    for signer in signers:
        assert service.issue(signer.assertion(service.client_id, service.issuer)).access_token


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


@pytest.mark.parametrize("flaw", REFUSED)
def test_refused(service_of: Callable[..., Service], flaw: str) -> None:
    """Each flaw is one and the same refusal, and uses nothing up: the same service's next assertion is good."""
    service = service_of()
    beside = {"client_id": service.client_id} if flaw in UNREADABLE else {}
    with refused("UNAUTHENTICATED", "INVALID_CLIENT") as caught:
        service.issue(REFUSED[flaw](service), **beside)
    assert caught.value.denial_id
    assert service.issue().access_token


def test_a_kid_of_another_algorithm(root: Api) -> None:
    """A registered key is good for its own algorithm only, whatever else it could verify (RFC 8725 §3.1)."""
    service = made(root, Signer("RS256"))
    same_key_by_pss = service.assertion(header={"alg": "PS256", "kid": service.signer.thumbprint})
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        service.issue(same_key_by_pss)
    other = made(root, Signer("ES256"), Signer("RS256"))
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        other.issue(other.assertion(header={"kid": Signer("RS256").thumbprint}))


def test_a_kid_of_anothers_key(service_of: Callable[..., Service]) -> None:
    """Another account's key, by its own kid, proves nothing about this one."""
    one, other = service_of(Signer(number=1)), service_of(Signer(number=2))
    stranger = other.signer.assertion(one.client_id, one.issuer, header={"kid": other.signer.thumbprint})
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        one.issue(stranger)
    assert other.issue().access_token


def test_one_key_may_serve_two_accounts(service_of: Callable[..., Service]) -> None:
    """A `jti` is an account's own: the same one of another account is no replay."""
    one, other = service_of(), service_of()
    for service in (one, other):
        assert service.issue(service.assertion(jti="same")).access_token


def test_a_replay(admin: Api) -> None:
    """An assertion is good once, whichever method it was used for; the same claims signed anew are the same one."""
    service = made(admin, Signer())
    claims = asserted(service.client_id, service.issuer)
    first = service.signer.sign(claims)
    token = service.issue(first).access_token
    for again in (first, service.signer.sign(claims), service.signer.sign({**claims, "exp": claims["exp"] + 60})):
        with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
            service.issue(again)
        with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
            request = tokens_pb.IntrospectTokenRequest(token=token, **credentials(again))
            admin.door.call("IntrospectToken", request)


def test_a_strangers_attempt_burns_no_jti(service_of: Callable[..., Service]) -> None:
    """Only a valid assertion counts as used: who saw one can't use its `jti` up beforehand."""
    service = service_of()
    claims = asserted(service.client_id, service.issuer)
    with refused("UNAUTHENTICATED"):
        service.issue(Signer(number=9).sign(claims))
    with refused("UNAUTHENTICATED"):
        service.issue(service.signer.sign({**claims, "aud": "https://other.test"}))
    assert service.issue(service.signer.sign(claims)).access_token


def test_another_assertion_type(admin: Api) -> None:
    """RFC 7521 §4.2.1: a type that nobody knows is a malformed request, and names the field over gRPC."""
    service = made(admin, Signer())
    for kind in ("x", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", ASSERTION_TYPE.upper()):
        with refused("INVALID_ARGUMENT"):
            service.issue(client_assertion_type=kind)


def test_two_authentications(service_of: Callable[..., Service], root: Api) -> None:
    """RFC 6749 §2.3: an assertion beside a secret or beside Basic is refused."""
    service, known = service_of(), root.account()
    with refused("INVALID_ARGUMENT", "TWO_CLIENT_AUTHENTICATIONS"):
        service.issue(client_secret=known.secret)
    request = tokens_pb.IssueTokenRequest(grant_type=GRANT, **credentials(service.assertion()))
    with refused("INVALID_ARGUMENT", "TWO_CLIENT_AUTHENTICATIONS"):
        root.door.call("IssueToken", request, root.basic(known).authorization)


# The account behind it


def test_a_suspended_account(service_of: Callable[..., Service], root: Api) -> None:
    """A suspended, then a deleted account's assertions are refused as wrong ones are."""
    service = service_of()
    for end, back in ((root.suspend, root.activate), (root.delete, root.undelete)):
        end(service.id)
        with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
            service.issue()
        back(service.id)
        assert service.issue().access_token


def test_a_removed_key(service_of: Callable[..., Service], root: Api) -> None:
    """A key that was replaced is refused at once, and its successor taken."""
    service, successor = service_of(), Signer(number=1)
    root.update(service.id, "public_keys", public_keys=[successor.public])
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        service.issue()
    assert service.issue(successor.assertion(service.client_id, service.issuer)).access_token


def test_an_account_with_a_secret_only(root: Api) -> None:
    """An account that registered no key can't be proved by one."""
    account: Account = root.account()
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        issue(root, Signer().assertion(account.client_id, root.issuer))


def test_no_account_method_takes_one(service_of: Callable[..., Service]) -> None:
    """An assertion is client authentication, not a bearer token."""
    service = service_of()
    with refused("UNAUTHENTICATED", "INVALID_TOKEN"):
        Api(service.api.door, service.issuer, f"Bearer {service.assertion()}").list()


def test_metadata(admin: Api) -> None:
    """RFC 8414 §2: the methods and the algorithms are announced, for each of the three endpoints."""
    found = admin.door.call("GetServerMetadata", tokens_pb.GetServerMetadataRequest())
    for endpoint in ("token", "introspection", "revocation"):
        assert "private_key_jwt" in getattr(found, f"{endpoint}_endpoint_auth_methods_supported")
        assert list(getattr(found, f"{endpoint}_endpoint_auth_signing_alg_values_supported")) == list(ALGORITHMS)


def test_a_denial_says_why(service: Installation, service_of: Callable[..., Service]) -> None:
    """The log has the true cause, an algorithm by its name, and nothing of the assertion."""
    signing = service_of()
    for flaw, cause in (("3.9 alg none", "alg none is not taken"), ("HS256 by nothing", "alg HS256 is not taken")):
        with refused("UNAUTHENTICATED"):
            signing.issue(REFUSED[flaw](signing))
        assert cause in service.log.getvalue()


def test_failures_are_limited(service: Installation, service_of: Callable[..., Service], root: Api) -> None:
    """Ten failures a minute from a source are looked at, then refused as too many; a right one is never locked out."""
    signing = service_of()
    wrong = Signer(number=9)
    for _ in range(10):
        with refused("UNAUTHENTICATED"):
            signing.issue(wrong.assertion(signing.client_id, signing.issuer))
    with refused("RESOURCE_EXHAUSTED", "TOO_MANY_FAILURES") as caught:
        signing.issue(wrong.assertion(signing.client_id, signing.issuer))
    assert caught.value.retry_after
    assert signing.issue().access_token
    known = first_account(service)
    assert root.introspect(known, signing.issue().access_token).active
