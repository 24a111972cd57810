"""Tokens bound to a client's certificate (RFC 8705 §3): good with it, and with no other, here and in other services."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import grpc
import pytest
import trustme
from artstore.identity import (
    AUTHENTICATED,
    AioBearerInterceptor,
    BearerInterceptor,
    BearerMiddleware,
    TokenVerifier,
    current_caller,
)
from artstore.identity.key_sources import GrpcKeys
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import service_account_service_pb2_grpc as accounts_grpc
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1 import token_service_pb2_grpc as tokens_grpc
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.util import urlsafe_b64encode

from tests.installation import ANY, Installation
from tests.transport.machines import CALL_SECONDS, Files, connected

HELD = "/t.Files/Held"
KINDS = ("unary", "threaded", "answers", "requests")


class Client:
    """A machine with a certificate."""

    def __init__(self, files: Files, name: str) -> None:
        made = files.ca.issue_cert(name)
        pem = made.cert_chain_pems[0].bytes()
        self.credentials = grpc.ssl_channel_credentials(files.ca_file.read_bytes(), made.private_key_pem.bytes(), pem)
        self.thumbprint = urlsafe_b64encode(x509.load_pem_x509_certificate(pem).fingerprint(SHA256())).decode()


@pytest.fixture(scope="module")
def ours(files: Files) -> Client:
    return Client(files, "ingester.artstore")


@pytest.fixture(scope="module")
def theirs(files: Files) -> Client:
    return Client(files, "query.artstore")


def issued(channel: grpc.Channel, service: Installation, *audience: str) -> str:
    request = tokens_pb.IssueTokenRequest(
        grant_type="client_credentials",
        client_id=service.administrator.client_id,
        client_secret=service.administrator.client_secret,
        audience=audience,
    )
    return str(tokens_grpc.TokenServiceStub(channel).IssueToken(request, timeout=CALL_SECONDS).access_token)


def bound(service: Installation, client: Client, *audience: str) -> str:
    """A token got by mutual TLS."""
    with connected(service.started.mtls_address, client.credentials) as channel:
        return issued(channel, service, *audience)


def introspected(channel: grpc.Channel, service: Installation, token: str) -> tokens_pb.IntrospectTokenResponse:
    request = tokens_pb.IntrospectTokenRequest(
        token=token, client_id=service.administrator.client_id, client_secret=service.administrator.client_secret
    )
    answer: tokens_pb.IntrospectTokenResponse = tokens_grpc.TokenServiceStub(channel).IntrospectToken(
        request, timeout=CALL_SECONDS
    )
    return answer


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def refused(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as failure:
        call()
    code: grpc.StatusCode = failure.value.code()
    return code


def test_our_own_methods(service: Installation, files: Files, ours: Client, theirs: Client) -> None:
    """A bound token is good with its certificate; with another's, and where none is shown, it is refused. One that was
    got without a certificate is bound to none."""
    token = bound(service, ours, service.issuer)
    request = accounts_pb.ListServiceAccountsRequest()

    def list_accounts(address: Any, credentials: grpc.ChannelCredentials, token: str) -> None:
        with connected(address, credentials) as channel:
            stub = accounts_grpc.ServiceAccountServiceStub(channel)
            stub.ListServiceAccounts(request, metadata=bearing(token), timeout=CALL_SECONDS)

    mutual, plain = service.started.mtls_address, service.started.grpc_address
    list_accounts(mutual, ours.credentials, token)
    unauthenticated = grpc.StatusCode.UNAUTHENTICATED
    assert refused(lambda: list_accounts(mutual, theirs.credentials, token)) is unauthenticated
    assert refused(lambda: list_accounts(plain, files.trusting, token)) is unauthenticated
    with connected(plain, files.trusting) as channel:
        free = issued(channel, service, service.issuer)
    list_accounts(plain, files.trusting, free)
    list_accounts(mutual, ours.credentials, free)


def test_introspection_says_so(service: Installation, files: Files, ours: Client) -> None:
    """Introspection answers what a token is bound to, over gRPC and in the words of RFC 8705 §3.2 over HTTPS."""
    token = bound(service, ours)
    with connected(service.started.grpc_address, files.trusting) as channel:
        assert introspected(channel, service, token).cnf.x5t_s256 == ours.thumbprint
        assert not introspected(channel, service, issued(channel, service)).HasField("cnf")
    form = {
        "token": token,
        "client_id": service.administrator.client_id,
        "client_secret": service.administrator.client_secret,
    }
    context = ssl.create_default_context(cafile=str(files.ca_file))
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    url = f"https://{service.started.gateway_address}/oauth2/introspect"
    with opener.open(Request(url, data=urlencode(form).encode()), timeout=CALL_SECONDS) as answer:
        assert json.load(answer)["cnf"] == {"x5t#S256": ours.thumbprint}


def test_the_metadata_say_so(service: Installation, files: Files, tmp_path: Path) -> None:
    """RFC 8705 §3.3, where there is a listener that binds tokens; and nowhere else. The endpoints, which are HTTP's,
    take no certificate for proof, and don't offer to (§2.1)."""
    with connected(service.started.grpc_address, files.trusting) as channel:
        stub = tokens_grpc.TokenServiceStub(channel)
        found = stub.GetServerMetadata(tokens_pb.GetServerMetadataRequest(), timeout=CALL_SECONDS)
    assert found.tls_client_certificate_bound_access_tokens
    for endpoint in ("token", "introspection", "revocation"):
        assert "tls_client_auth" not in getattr(found, f"{endpoint}_endpoint_auth_methods_supported")
    with Installation(tmp_path) as without:
        found = without.tokens.GetServerMetadata(tokens_pb.GetServerMetadataRequest(), timeout=CALL_SECONDS)
    assert not found.tls_client_certificate_bound_access_tokens


def test_a_proxys_certificate_binds_nothing(tmp_path: Path) -> None:
    """A gateway that calls by mutual TLS is not the client: tokens that come through it are bound to nothing."""
    files = Files(tmp_path)
    settings = files.settings | {"grpc_mtls_address": ANY, "mtls_client_ca_file": files.ca_file}
    trusted = (ip_network("127.0.0.0/8"),)
    with Installation(tmp_path / "service", trusted_proxies=trusted, **settings) as service:
        token = bound(service, Client(files, "gateway.artstore"))
        with connected(service.started.grpc_address, files.trusting) as channel:
            answer = introspected(channel, service, token)
        assert answer.active
        assert not answer.HasField("cnf")


def verifier(service: Installation, files: Files) -> TokenVerifier:
    keys = GrpcKeys(str(service.started.grpc_address), files.trusting)
    return TokenVerifier(service.issuer, audience="artstore", keys=keys)


def credentials(files: Files, ca: trustme.CA) -> grpc.ServerCredentials:
    made = ca.issue_cert("127.0.0.1")
    pair = (made.private_key_pem.bytes(), made.cert_chain_pems[0].bytes())
    return grpc.ssl_server_credentials([pair], files.ca_file.read_bytes(), require_client_auth=True)


def who(*_: object) -> bytes:
    return current_caller().client_id.encode()


def handler(kind: str, *, threads: bool) -> grpc.RpcMethodHandler[Any, Any]:
    """A method of one kind, that answers who calls."""

    async def single(request: Any, context: Any) -> bytes:
        return who()

    async def stream(request: Any, context: Any) -> Any:
        yield who()

    def answers(request: Any, context: Any) -> Iterator[bytes]:
        yield who()

    one, many = (who, answers) if threads or kind == "threaded" else (single, stream)
    if kind == "answers":
        return grpc.unary_stream_rpc_method_handler(many)
    if kind == "requests":
        return grpc.stream_unary_rpc_method_handler(one)
    return grpc.unary_unary_rpc_method_handler(one)


def called(address: str, kind: str, client: Client, token: str) -> bytes:
    """Calls another service's method."""
    with grpc.secure_channel(address, client.credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        if kind == "answers":
            return b"".join(channel.unary_stream(HELD)(b"", metadata=bearing(token), timeout=CALL_SECONDS))
        if kind == "requests":
            answer = channel.stream_unary(HELD)(iter([b""]), metadata=bearing(token), timeout=CALL_SECONDS)
        else:
            answer = channel.unary_unary(HELD)(b"", metadata=bearing(token), timeout=CALL_SECONDS)
        return bytes(answer)


@contextmanager
def threaded_server(files: Files, interceptor: BearerInterceptor, kind: str) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[interceptor])
    held = {"Held": handler(kind, threads=True)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Files", held),))
    port = server.add_secure_port("127.0.0.1:0", credentials(files, files.ca))
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(CALL_SECONDS)


def check_both(address: str, kind: str, service: Installation, ours: Client, theirs: Client) -> None:
    """The token is good with its certificate, and is refused with another's, whichever comes first."""
    token, client_id = bound(service, ours), service.administrator.client_id.encode()
    for _ in range(2):
        assert refused(lambda: called(address, kind, theirs, token)) is grpc.StatusCode.UNAUTHENTICATED
        assert called(address, kind, ours, token) == client_id


@pytest.mark.parametrize("kind", KINDS)
async def test_a_service_of_asyncio(
    service: Installation, files: Files, ours: Client, theirs: Client, kind: str
) -> None:
    """The interceptor of grpc.aio refuses a bound token that comes with another's certificate, in methods of every
    kind, those it runs in threads too."""
    interceptor = AioBearerInterceptor(verifier(service, files), {HELD: AUTHENTICATED})
    server = grpc.aio.server(ThreadPoolExecutor(4), interceptors=[interceptor])
    held = {"Held": handler(kind, threads=False)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Files", held),))
    port = server.add_secure_port("127.0.0.1:0", credentials(files, files.ca))
    await server.start()
    try:
        await asyncio.to_thread(check_both, f"127.0.0.1:{port}", kind, service, ours, theirs)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("kind", ["unary", "answers", "requests"])
def test_a_service_of_threads(service: Installation, files: Files, ours: Client, theirs: Client, kind: str) -> None:
    """So does that of servers with threads."""
    interceptor = BearerInterceptor(verifier(service, files), {HELD: AUTHENTICATED})
    with threaded_server(files, interceptor, kind) as address:
        check_both(address, kind, service, ours, theirs)


async def test_where_no_certificate_can_be_seen(service: Installation, files: Files, ours: Client) -> None:
    """ASGI shows no certificate: the middleware answers a bound token with 401, and never calls the app."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the app was called")

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    async def send(message: Any) -> None:
        sent.append(message)

    guarded = BearerMiddleware(app, verifier=verifier(service, files), table={"GET /held": AUTHENTICATED})
    header = (b"authorization", f"Bearer {bound(service, ours)}".encode())
    await guarded({"type": "http", "method": "GET", "path": "/held", "headers": [header]}, receive, send)
    assert sent[0]["status"] == 401
    assert b"invalid_token" in dict(sent[0]["headers"])[b"www-authenticate"]
