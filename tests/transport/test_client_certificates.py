"""Client certificates that authenticate an account (`tls_client_auth`, RFC 8705 §2.1): its own, and no other."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener
from uuid import uuid4

import grpc
import pytest
from artstore.identity import Client, SyncTokenSource
from artstore.identity.confirmation import thumbprint
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import service_account_service_pb2_grpc as accounts_grpc
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1 import token_service_pb2_grpc as tokens_grpc
from google.protobuf.field_mask_pb2 import FieldMask

from artstore_grpc.model import SECRET_LIFETIME
from artstore_grpc.subjects import subjects
from tests.api.doors import Refused, told
from tests.cli import processes
from tests.installation import ANY, Installation
from tests.transport.machines import CALL_SECONDS, Files, connected

NAME = "query.artstore"


@dataclass(frozen=True)
class Machine:
    """A machine with a certificate, as files too."""

    certificate: bytes
    key: bytes
    ca: bytes

    @property
    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def machine(files: Files, name: str) -> Machine:
    made = files.ca.issue_cert(name)
    return Machine(made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes(), files.ca_file.read_bytes())


@pytest.fixture(scope="module")
def ours(files: Files) -> Machine:
    return machine(files, NAME)


@pytest.fixture(scope="module")
def theirs(files: Files) -> Machine:
    return machine(files, "ingester.artstore")


@dataclass(frozen=True)
class Admin:
    """An administrator of a service with TLS."""

    service: Installation
    files: Files
    authorization: str = ""

    @contextmanager
    def stub(self) -> Iterator[Any]:
        with connected(self.service.started.grpc_address, self.files.trusting) as channel:
            yield accounts_grpc.ServiceAccountServiceStub(channel)

    def call(self, method: str, request: Any) -> Any:
        authorization = self.authorization or f"Bearer {self.token()}"
        with self.stub() as stub:
            try:
                metadata = (("authorization", authorization),)
                return getattr(stub, method)(request, metadata=metadata, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                raise told(error) from None

    def token(self) -> str:
        known = self.service.administrator
        with connected(self.service.started.grpc_address, self.files.trusting) as channel:
            request = tokens_pb.IssueTokenRequest(
                grant_type="client_credentials",
                client_id=known.client_id,
                client_secret=known.client_secret,
                audience=[self.service.issuer],
            )
            return str(tokens_grpc.TokenServiceStub(channel).IssueToken(request, timeout=CALL_SECONDS).access_token)

    def create(self, subject: str, *, without_secret: bool = True, **more: Any) -> Any:
        fields = {"role": accounts_pb.ROLE_USER, "certificate_subject": subject, "name": uuid4().hex} | more
        made = accounts_pb.ServiceAccount(**fields)
        request = accounts_pb.CreateServiceAccountRequest(service_account=made, without_secret=without_secret)
        return self.call("CreateServiceAccount", request)

    def account(self, subject: str = f"san_dns:{NAME}", **more: Any) -> accounts_pb.ServiceAccount:
        made: accounts_pb.ServiceAccount = self.create(subject, **more).service_account
        return made


@pytest.fixture(scope="module")
def admin(service: Installation, files: Files) -> Admin:
    return Admin(service, files)


def issue(service: Installation, shown: Machine, client_id: str, *, authorization: str = "", **more: Any) -> Any:
    """IssueToken on the listener for mutual TLS. Raises Refused."""
    request = tokens_pb.IssueTokenRequest(grant_type="client_credentials", client_id=client_id, **more)
    metadata = (("authorization", authorization),) if authorization else ()
    with connected(service.started.mtls_address, shown.credentials) as channel:
        try:
            return tokens_grpc.TokenServiceStub(channel).IssueToken(request, metadata=metadata, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise told(error) from None


def denied(call: Any) -> str:
    with pytest.raises(Refused) as refusal:
        call()
    assert (refusal.value.code, refusal.value.reason) == ("UNAUTHENTICATED", "INVALID_CLIENT")
    return refusal.value.denial_id


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def test_a_certificate_authenticates(service: Installation, admin: Admin, ours: Machine) -> None:
    """Its client_id and its certificate are all that a client sends; the token is bound to it."""
    account = admin.account()
    issued = issue(service, ours, account.client_id)
    claims = claims_of(issued.access_token)
    assert (claims["sub"], claims["cnf"]) == (account.id, {"x5t#S256": thumbprint(ours.certificate)})
    assert not issued.HasField("secret_expire_time")
    lines = [json.loads(line) for line in service.log.getvalue().splitlines()]
    assert [line for line in lines if line.get("certificate_subject") == f"san_dns:{NAME}"][-1]["jti"] == claims["jti"]


def test_the_other_methods(service: Installation, admin: Admin, ours: Machine) -> None:
    """It introspects and revokes by it too."""
    account = admin.account()
    token = issue(service, ours, account.client_id).access_token
    with connected(service.started.mtls_address, ours.credentials) as channel:
        stub = tokens_grpc.TokenServiceStub(channel)
        asked = tokens_pb.IntrospectTokenRequest(client_id=account.client_id, token=token)
        assert stub.IntrospectToken(asked, timeout=CALL_SECONDS).active
        stub.RevokeToken(tokens_pb.RevokeTokenRequest(client_id=account.client_id, token=token), timeout=CALL_SECONDS)
        assert not stub.IntrospectToken(asked, timeout=CALL_SECONDS).active


def test_every_kind_of_subject(service: Installation, admin: Admin, files: Files) -> None:
    """A name of whichever kind; one that another kind of name has is none."""
    shown = machine(files, "192.0.2.7")
    issue(service, shown, admin.account("san_ip:192.0.2.7").client_id)
    denied(lambda: issue(service, shown, admin.account("san_dns:192.0.2.7").client_id))
    organization = files.ca.issue_cert("a.artstore", organization_name="ArtStore", common_name="query")
    named = Machine(
        organization.cert_chain_pems[0].bytes(), organization.private_key_pem.bytes(), files.ca_file.read_bytes()
    )
    subject = next(name for name in subjects(named.certificate) if name.startswith("subject_dn:"))
    assert "CN=query" in subject
    issue(service, named, admin.account(subject).client_id)
    denied(lambda: issue(service, named, admin.account("subject_dn:CN=query").client_id))


def test_refused(service: Installation, admin: Admin, ours: Machine, theirs: Machine) -> None:
    """Another's certificate; an account that names none, that is suspended or that there is not; by one answer."""
    account, bare = admin.account(), admin.account("", without_secret=False)
    denied(lambda: issue(service, theirs, account.client_id))
    denied(lambda: issue(service, ours, bare.client_id))
    denied(lambda: issue(service, ours, "sa_dev_nobody_00000000"))
    denied(lambda: issue(service, ours, "no client id, nor can it be one"))
    issue(service, ours, account.client_id)
    admin.call("SuspendServiceAccount", accounts_pb.SuspendServiceAccountRequest(id=account.id))
    denied(lambda: issue(service, ours, account.client_id))


def test_a_proof_beside_it_is_the_proof(service: Installation, admin: Admin, ours: Machine) -> None:
    """Who sends a secret is asked for that, whatever its certificate: a wrong one is wrong, in fields and in Basic."""
    account = admin.account()
    denied(lambda: issue(service, ours, account.client_id, client_secret="wrong"))
    for pair in (f"{account.client_id}:", f"{account.client_id}:wrong"):
        basic = "Basic " + b64encode(pair.encode()).decode()
        denied(lambda basic=basic: issue(service, ours, "", authorization=basic))


def test_elsewhere_it_is_no_proof(service: Installation, admin: Admin, ours: Machine, files: Files) -> None:
    """On the listener that asks for no certificate, and over HTTPS, a client_id alone is nothing."""
    account = admin.account()
    request = tokens_pb.IssueTokenRequest(grant_type="client_credentials", client_id=account.client_id)
    with connected(service.started.grpc_address, ours.credentials) as channel:
        stub = tokens_grpc.TokenServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.IssueToken(request, timeout=CALL_SECONDS)
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
    asked = Request(f"https://{service.started.gateway_address}/oauth2/token")
    asked.data = urlencode({"grant_type": "client_credentials", "client_id": account.client_id}).encode()
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=ssl.create_default_context(cafile=files.ca_file)))
    with pytest.raises(HTTPError) as answer:
        opener.open(asked, timeout=CALL_SECONDS)
    assert answer.value.code == 401
    answer.value.close()


def test_a_proxys_certificate_proves_nobody(files: Files, tmp_path: Path, ours: Machine) -> None:
    """A gateway's own certificate is not its callers'."""
    settings = files.settings | {
        "grpc_mtls_address": ANY,
        "mtls_client_ca_file": files.ca_file,
        "trusted_proxies": (ip_network("127.0.0.0/8"),),
    }
    with Installation(tmp_path, **settings) as service:
        account = Admin(service, files).account()
        denied(lambda: issue(service, ours, account.client_id))


def test_it_does_not_expire(files: Files, tmp_path: Path, ours: Machine) -> None:
    """An account with a certificate outlives its secrets, in its own state and in lists by state."""
    settings = files.settings | {"grpc_mtls_address": ANY, "mtls_client_ca_file": files.ca_file}
    with Installation(tmp_path, **settings) as service:
        own = {"role": accounts_pb.ROLE_ADMIN, "audiences": ["artstore", service.issuer]}
        account = Admin(service, files).account(without_secret=False, **own)
        service.clock.advance(SECRET_LIFETIME + timedelta(minutes=1))
        token = issue(service, ours, account.client_id, audience=[service.issuer]).access_token
        with connected(service.started.mtls_address, ours.credentials) as channel:
            stub = accounts_grpc.ServiceAccountServiceStub(channel)
            metadata = (("authorization", f"Bearer {token}"),)
            for state, found in (("active", True), ("expired", False)):
                request = accounts_pb.ListServiceAccountsRequest(filter=f"state = {state}")
                listed = stub.ListServiceAccounts(request, metadata=metadata, timeout=CALL_SECONDS).service_accounts
                assert (account.id in [each.id for each in listed]) is found
            shown = stub.GetServiceAccount(
                accounts_pb.GetServiceAccountRequest(id=account.id), metadata=metadata, timeout=CALL_SECONDS
            )
            assert shown.service_account.state == accounts_pb.STATE_ACTIVE


def test_what_an_account_may_name(admin: Admin) -> None:
    """One subject in its one form; a change of it is in the ledger; without one there must be something else."""
    account = admin.account("san_dns:Query.ArtStore")
    assert account.certificate_subject == f"san_dns:{NAME}"
    changed = accounts_pb.ServiceAccount(id=account.id, certificate_subject="san_uri:spiffe://artstore/query")
    mask = FieldMask(paths=["certificate_subject"])
    request = accounts_pb.UpdateServiceAccountRequest(service_account=changed, update_mask=mask)
    after = admin.call("UpdateServiceAccount", request).service_account
    assert after.certificate_subject == "san_uri:spiffe://artstore/query"
    for subject in ("query", "san_dns:*.artstore", "san_ip:x", "subject_dn:nothing"):
        with pytest.raises(Refused) as refusal:
            admin.create(subject)
        assert refusal.value.fields == ("certificate_subject",)
    with pytest.raises(Refused) as refusal:
        admin.create("")
    assert refusal.value.fields == ("without_secret",)


def test_nobody_changes_their_own(service: Installation, admin: Admin, ours: Machine, theirs: Machine) -> None:
    """Nor lends an account that holds a scope they lack another certificate."""
    account = admin.account(role=accounts_pb.ROLE_ADMIN, audiences=["artstore", service.issuer])
    token = issue(service, ours, account.client_id, audience=[service.issuer]).access_token
    changed = accounts_pb.ServiceAccount(id=account.id, certificate_subject="san_dns:other.artstore")
    mask = FieldMask(paths=["certificate_subject"])
    request = accounts_pb.UpdateServiceAccountRequest(service_account=changed, update_mask=mask)
    assert refusal_of(service, ours, token, request) == "OWN_ACCOUNT"
    narrow = admin.account(
        "san_dns:ingester.artstore",
        role=accounts_pb.ROLE_ADMIN,
        scopes=["identity.accounts.write"],
        audiences=["artstore", service.issuer],
    )
    lesser = issue(service, theirs, narrow.client_id, audience=[service.issuer]).access_token
    assert refusal_of(service, theirs, lesser, request) == "SCOPE_NOT_HELD"


def refusal_of(service: Installation, shown: Machine, token: str, request: Any) -> str:
    """Why an update by this token is refused."""
    metadata = (("authorization", f"Bearer {token}"),)
    with connected(service.started.mtls_address, shown.credentials) as channel:
        stub = accounts_grpc.ServiceAccountServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.UpdateServiceAccount(request, metadata=metadata, timeout=CALL_SECONDS)
    return told(refusal.value).reason


async def test_the_library(service: Installation, admin: Admin, ours: Machine) -> None:
    """A client and a token source need a client_id and the channel's certificate, and no secret."""
    account = await asyncio.to_thread(admin.account)
    target = str(service.started.mtls_address)
    async with Client(target, client_id=account.client_id, channel_credentials=ours.credentials) as client:
        assert claims_of((await client.issue_token()).access_token)["sub"] == account.id
    with SyncTokenSource(target, client_id=account.client_id, channel_credentials=ours.credentials) as source:
        assert claims_of(await asyncio.to_thread(source.token))["sub"] == account.id
    with pytest.raises(ValueError, match="client certificate"):
        SyncTokenSource(target, client_id=account.client_id)


def test_an_account_by_the_command(service: Installation, ours: Machine, files: Files, tmp_path: Path) -> None:
    """`accounts create --certificate-subject … --without-secret`, as docs/transport.md has it; `update` ends it."""
    known = service.administrator
    variables = {
        "ARTSTORE_TARGET": str(service.started.grpc_address),
        "ARTSTORE_CLIENT_ID": known.client_id,
        "ARTSTORE_CLIENT_SECRET": known.client_secret,
        "ARTSTORE_CA_FILE": str(files.ca_file),
    }
    create = ("--name", uuid4().hex, "--role", "user", "--certificate-subject", f"san_dns:{NAME}", "--without-secret")
    said = processes.run("accounts", "create", *create, "--json", folder=tmp_path, **variables)
    assert said.returncode == 0, said.stderr
    made = json.loads(said.stdout)
    assert (made["certificate_subject"], made["client_secret"]) == (f"san_dns:{NAME}", "")
    issue(service, ours, made["client_id"])
    said = processes.run("accounts", "update", made["id"], "--certificate-subject", "", folder=tmp_path, **variables)
    assert said.returncode == 0, said.stderr
    denied(lambda: issue(service, ours, made["client_id"]))


def test_the_command(service: Installation, admin: Admin, ours: Machine, files: Files, tmp_path: Path) -> None:
    """`token` with a client certificate and a client_id."""
    account = admin.account()
    for name, content in (("me.crt", ours.certificate), ("me.key", ours.key)):
        (tmp_path / name).write_bytes(content)
    variables = {
        "ARTSTORE_TARGET": str(service.started.mtls_address),
        "ARTSTORE_CLIENT_ID": account.client_id,
        "ARTSTORE_CA_FILE": str(files.ca_file),
        "ARTSTORE_CLIENT_CERTIFICATE_FILE": "me.crt",
        "ARTSTORE_CLIENT_CERTIFICATE_KEY_FILE": "me.key",
    }
    said = processes.run("token", folder=tmp_path, **variables)
    assert said.returncode == 0, said.stderr
    assert claims_of(said.stdout.strip())["sub"] == account.id
