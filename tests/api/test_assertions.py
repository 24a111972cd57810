"""Client assertions (private_key_jwt, RFC 7523): what authenticates an account by its key, and what doesn't."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from tests.api.assertion_cases import ACCEPTED, REFUSED, UNREADABLE, Service, credentials, issue, made
from tests.api.callers import GRANT, Api
from tests.api.conftest import first_account
from tests.api.doors import refused
from tests.api.forgery import parts
from tests.installation import Account, Installation
from tests.signers import ALGORITHMS, ASSERTION_TYPE, Signer, asserted


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
