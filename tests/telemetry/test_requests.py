"""Requests for tokens are counted by what became of them and how their client set out to prove itself, at each door."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from urllib.parse import urlencode

import grpc
import httpx
import pytest
from artstore.identity.v1 import service_account_service_pb2_grpc, token_service_pb2_grpc
from artstore.identity.v1 import token_service_pb2 as pb

from tests.installation import ANY, Account, Installation
from tests.signers import ASSERTION_TYPE, Signer
from tests.telemetry.scrapes import Change
from tests.transport.machines import Files, connected

GRANT = "client_credentials"
REQUESTS = "artstore_token_requests_total"
FORM = "application/x-www-form-urlencoded"
SIGNER = Signer("ES256")
NAME = "metrics.artstore"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("service")) as made:
        yield made


@pytest.fixture(scope="module")
def user(service: Installation) -> Account:
    return service.account("user", rate_limit=100_000, public_keys=[SIGNER.public])


def asked(service: Installation, *, basic: str = "", **fields: object) -> None:
    """IssueToken over gRPC, whatever comes of it."""
    metadata = (("authorization", f"Basic {base64.b64encode(basic.encode()).decode()}"),) if basic else ()
    with contextlib.suppress(grpc.RpcError):
        service.tokens.IssueToken(pb.IssueTokenRequest(**({"grant_type": GRANT} | fields)), metadata=metadata)  # type: ignore[arg-type]


def posted(service: Installation, path: str = "/oauth2/token", *, basic: str = "", **parameters: str) -> int:
    """The same over HTTP."""
    headers = {"content-type": FORM}
    if basic:
        headers["authorization"] = f"Basic {base64.b64encode(basic.encode()).decode()}"
    body = urlencode({"grant_type": GRANT} | parameters)
    return httpx.post(f"{service.url}{path}", content=body, headers=headers, trust_env=False).status_code


def test_issued_by_each_way_over_grpc(service: Installation, user: Account) -> None:
    """A secret in the request, one in the metadata, an assertion: each is counted once, under its name."""
    assertion = SIGNER.assertion(user.client_id, service.issuer)
    with Change(service) as change:
        asked(service, client_id=user.client_id, client_secret=user.secret)
        asked(service, basic=f"{user.client_id}:{user.secret}")
        asked(service, client_assertion_type=ASSERTION_TYPE, client_assertion=assertion)
    assert change.all_of(REQUESTS) == {
        ("client_secret_post", "issued"): 1,
        ("client_secret_basic", "issued"): 1,
        ("private_key_jwt", "issued"): 1,
    }
    assert change.of("artstore_tokens_issued_total", mode="normal") == 3


def test_issued_by_each_way_over_http(service: Installation, user: Account) -> None:
    """The same by a form at either path, and by JSON at the one that takes it."""
    assertion = SIGNER.assertion(user.client_id, service.issuer)
    with Change(service) as change:
        assert posted(service, client_id=user.client_id, client_secret=user.secret) == 200
        assert posted(service, "/api/v1/auth/token", basic=f"{user.client_id}:{user.secret}") == 200
        assert posted(service, client_assertion_type=ASSERTION_TYPE, client_assertion=assertion) == 200
        document = {"grant_type": GRANT, "client_id": user.client_id, "client_secret": user.secret}
        assert httpx.post(f"{service.url}/api/v1/auth/token", json=document, trust_env=False).status_code == 200
    assert change.all_of(REQUESTS) == {
        ("client_secret_post", "issued"): 2,
        ("client_secret_basic", "issued"): 1,
        ("private_key_jwt", "issued"): 1,
    }


@pytest.mark.parametrize("door", ["grpc", "http"])
@pytest.mark.parametrize(
    ("outcome", "way", "fields"),
    [
        ("invalid_client", "client_secret_post", {"client_id": "{id}", "client_secret": "wrong"}),
        ("invalid_client", "client_secret_basic", {"basic": "{id}:wrong"}),
        ("invalid_client", "private_key_jwt", {"client_assertion_type": ASSERTION_TYPE, "client_assertion": "a.b.c"}),
        ("invalid_client", "none", {}),
        ("invalid_client", "none", {"client_id": "{id}"}),
        ("invalid_scope", "client_secret_post", {"client_id": "{id}", "client_secret": "{secret}", "scope": "other"}),
        ("invalid_target", "client_secret_basic", {"basic": "{id}:{secret}", "audience": "another"}),
        ("unsupported_grant_type", "client_secret_basic", {"basic": "{id}:{secret}", "grant_type": "password"}),
        ("invalid_request", "client_secret_post", {"client_id": "{id}", "client_secret": "{secret}", "grant_type": ""}),
        ("invalid_request", "client_secret_basic", {"basic": "{id}:{secret}", "client_secret": "{secret}"}),
        ("invalid_request", "private_key_jwt", {"client_assertion": "a.b.c"}),
    ],
)
def test_refused(
    service: Installation, user: Account, door: str, outcome: str, way: str, fields: dict[str, str]
) -> None:
    """Whatever a request is refused for, it is counted once, by the code that OAuth has for it, and by what it tried;
    nothing is issued."""
    filled = {name: value.format(id=user.client_id, secret=user.secret) for name, value in fields.items()}
    with Change(service) as change:
        if door == "http":
            posted(service, **filled)
        else:
            asked(service, **{name: [value] if name == "audience" else value for name, value in filled.items()})
    assert change.all_of(REQUESTS) == {(way, outcome): 1}
    assert change.all_of("artstore_tokens_issued_total") == {}


def test_over_the_limit_and_not_for_tokens(service: Installation) -> None:
    """An account over its rate limit, and one that may only introspect."""
    slow = service.account("user", rate_limit=1)
    introspector = service.account("user", introspection_only=True, served_audiences=["artstore"])
    with Change(service) as change:
        for _ in range(2):
            asked(service, client_id=slow.client_id, client_secret=slow.secret)
        asked(service, client_id=introspector.client_id, client_secret=introspector.secret)
    assert change.all_of(REQUESTS) == {
        ("client_secret_post", "issued"): 1,
        ("client_secret_post", "temporarily_unavailable"): 1,
        ("client_secret_post", "unauthorized_client"): 1,
    }


def test_bytes_that_are_no_message(service: Installation) -> None:
    """They are counted as a request that is malformed, in which nobody tried to prove anything."""
    call = service.channel.unary_unary("/artstore.identity.v1.TokenService/IssueToken")
    with Change(service) as change, pytest.raises(grpc.RpcError):
        call(b"\xff\xff\xff")
    assert change.all_of(REQUESTS) == {("none", "invalid_request"): 1}


def test_what_http_refuses(service: Installation, user: Account) -> None:
    """At the token's endpoints a request that HTTP refuses is counted too, by the header it has; at others not."""
    basic = {"authorization": f"Basic {base64.b64encode(f'{user.client_id}:{user.secret}'.encode()).decode()}"}
    with Change(service) as change, httpx.Client(base_url=service.url, trust_env=False) as http:
        assert (
            http.post("/oauth2/token", content=b"{}", headers=basic | {"content-type": "text/plain"}).status_code == 400
        )
        assert http.post("/oauth2/token", content=b"a=b&a=c", headers={"content-type": FORM}).status_code == 400
        assert http.post("/api/v1/auth/token", content=bytes(70_000), headers=basic).status_code == 413
        assert http.get("/oauth2/token").status_code == 405
        assert http.post("/oauth2/revoke", content=b"{}", headers={"content-type": "text/plain"}).status_code == 400
        assert http.get("/api/v1/nothing").status_code == 404
    assert change.all_of(REQUESTS) == {
        ("client_secret_basic", "invalid_request"): 2,
        ("none", "invalid_request"): 2,
    }


def test_only_requests_for_tokens(service: Installation, user: Account) -> None:
    """Introspection, and an administrator's call, are calls and no requests for a token."""
    token = service.token(user.client_id, user.secret)
    with Change(service) as change:
        service.tokens.IntrospectToken(
            pb.IntrospectTokenRequest(token=token, client_id=user.client_id, client_secret=user.secret)
        )
    assert change.all_of(REQUESTS) == {}
    introspection = "artstore.identity.v1.TokenService/IntrospectToken"
    assert change.of("artstore_calls_total", method=introspection, door="grpc", code="OK") == 1
    assert change.of("artstore_call_duration_seconds_count", method=introspection) == 1


def test_methods_that_there_are_not(service: Installation) -> None:
    """Whatever they are called and whichever service they claim, they are calls of the one `unknown`, and no others."""
    with Change(service) as change:
        for method in ("TokenService/Nothing", "NoService/IssueToken"):
            with pytest.raises(grpc.RpcError) as refused:
                service.channel.unary_unary(f"/artstore.identity.v1.{method}")(b"")
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert change.all_of("artstore_calls_total") == {("UNIMPLEMENTED", "grpc", "unknown"): 2}
    assert change.all_of("artstore_call_duration_seconds_count") == {("unknown",): 2}


def test_by_a_certificate(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A certificate that the account is registered by is `tls_client_auth`; another's is that too, and refused."""
    files = Files(tmp_path_factory.mktemp("tls"))
    listening = {"grpc_mtls_address": ANY, "mtls_client_ca_file": files.ca_file}
    with (
        Installation(tmp_path_factory.mktemp("service"), **files.settings | listening) as service,
        connected(service.started.grpc_address, files.trusting) as plain,
        connected(service.started.mtls_address, files.client(NAME)) as mutual,
    ):
        service.tokens = token_service_pb2_grpc.TokenServiceStub(plain)
        service.accounts = service_account_service_pb2_grpc.ServiceAccountServiceStub(plain)
        accounts = [
            service.account("user", certificate_subject=f"san_dns:{name}") for name in (NAME, "another.artstore")
        ]
        tokens = token_service_pb2_grpc.TokenServiceStub(mutual)
        with Change(service) as change:
            for account in accounts:
                with contextlib.suppress(grpc.RpcError):
                    tokens.IssueToken(pb.IssueTokenRequest(grant_type=GRANT, client_id=account.client_id))
    assert change.all_of(REQUESTS) == {("tls_client_auth", "issued"): 1, ("tls_client_auth", "invalid_client"): 1}
