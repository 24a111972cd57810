"""TLS on gRPC and the gateway, its certificates replaced while it serves, and the listener that demands clients'."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import grpc
import pytest
import trustme
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1 import token_service_pb2_grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization as pem
from grpc_health.v1 import health_pb2, health_pb2_grpc

from artstore_grpc.certificates import Certificates, refuse_plain_text
from artstore_grpc.settings import Address, InvalidSettings, Settings
from artstore_grpc.telemetry.logs import configured
from tests.cli.processes import ANY_PORT, Running, run
from tests.installation import ANY, Installation, Log

CALL_SECONDS = 60.0


class Files:
    """A CA, and the files of a certificate of its."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.folder = folder
        self.certificate, self.key, self.ca_file = folder / "tls.crt", folder / "tls.key", folder / "ca.pem"
        self.ca.cert_pem.write_to_path(self.ca_file)
        self.replace()

    def replace(self, **dates: Any) -> int:
        """Puts a new certificate and its key in place; returns the serial number of the certificate."""
        made = self.ca.issue_cert("127.0.0.1", "localhost", **dates)
        put(self.key, made.private_key_pem.bytes())
        put(self.certificate, b"".join(each.bytes() for each in made.cert_chain_pems))
        return serial_of(made.cert_chain_pems[0].bytes())

    @property
    def settings(self) -> dict[str, Any]:
        return {"tls_certificate_file": self.certificate, "tls_key_file": self.key}

    @property
    def variables(self) -> dict[str, str]:
        return {f"ARTSTORE_{name.upper()}": str(path) for name, path in self.settings.items()}

    def client(self, name: str = "ingester.artstore", ca: trustme.CA | None = None) -> grpc.ChannelCredentials:
        """A channel's credentials with a certificate of a client's own, of this CA or another."""
        made = (ca or self.ca).issue_cert(name)
        return grpc.ssl_channel_credentials(
            self.ca_file.read_bytes(), made.private_key_pem.bytes(), made.cert_chain_pems[0].bytes()
        )

    @property
    def trusting(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca_file.read_bytes())


def put(path: Path, content: bytes) -> None:
    """Replaces a file whole, as a rename does."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def serial_of(certificate: bytes) -> int:
    return x509.load_pem_x509_certificate(certificate).serial_number


def presented(address: Address, alpn: str = "h2") -> int:
    """The serial number of the certificate that a server presents to a new connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    with socket.create_connection((address.host, address.port), CALL_SECONDS) as raw, context.wrap_socket(raw) as made:
        der = made.getpeercert(binary_form=True)
    assert der is not None
    return serial_of(ssl.DER_cert_to_PEM_cert(der).encode())


@contextlib.contextmanager
def connected(address: Address | None, credentials: grpc.ChannelCredentials) -> Iterator[grpc.Channel]:
    """A channel on a connection of its own."""
    channel = grpc.secure_channel(str(address), credentials, options=[("grpc.use_local_subchannel_pool", 1)])
    try:
        yield channel
    finally:
        channel.close()


def issue(channel: grpc.Channel, service: Installation) -> str:
    """A token for the administrator, by a channel."""
    request = tokens_pb.IssueTokenRequest(
        grant_type="client_credentials",
        client_id=service.administrator.client_id,
        client_secret=service.administrator.client_secret,
    )
    answer: tokens_pb.IssueTokenResponse = token_service_pb2_grpc.TokenServiceStub(channel).IssueToken(
        request, timeout=CALL_SECONDS
    )
    return answer.access_token


def health(channel: grpc.Channel) -> int:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)
    return int(answer.status)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def service(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A service with TLS, and a listener that demands certificates."""
    settings = files.settings | {
        "grpc_mtls_address": ANY,
        "mtls_client_ca_file": files.ca_file,
        "health_address": ANY,
    }
    with Installation(tmp_path_factory.mktemp("service"), **settings) as made:
        yield made


def post(service: Installation, files: Files) -> int:
    """The status of a token request at the gateway, on a connection of its own."""
    context = ssl.create_default_context(cafile=str(files.ca_file))
    form = "grant_type=client_credentials&client_id={0.client_id}&client_secret={0.client_secret}"
    url = f"https://{service.started.gateway_address}/oauth2/token"
    request = Request(url, data=form.format(service.administrator).encode())
    with build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open(request, timeout=CALL_SECONDS) as answer:
        return int(answer.status)


def test_the_issuer_follows(service: Installation) -> None:
    """With TLS the issuer that nobody gave is an https URL."""
    assert service.issuer == f"https://{service.started.gateway_address}"


class Load:
    """Calls without an end, each kind in a thread: over a kept connection, over new ones, over new HTTPS ones."""

    def __init__(self, service: Installation, files: Files) -> None:
        self._service, self._files = service, files
        self._enough = threading.Event()
        self.counts = dict.fromkeys(("kept", "new", "https"), 0)
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(kind,), daemon=True) for kind in self.counts]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join(CALL_SECONDS)

    def _run(self, kind: str) -> None:
        try:
            with self._connected() as kept:
                while not self._enough.is_set():
                    self._call(kind, kept)
                    self.counts[kind] += 1
        except BaseException as failure:
            self.failures.append(failure)

    def _connected(self) -> contextlib.AbstractContextManager[grpc.Channel]:
        return connected(self._service.started.grpc_address, self._files.trusting)

    def _call(self, kind: str, kept: grpc.Channel) -> None:
        if kind == "kept":
            issue(kept, self._service)
        elif kind == "new":
            with self._connected() as channel:
                health(channel)
        else:
            assert post(self._service, self._files) == 200

    @property
    def enough(self) -> bool:
        return sum(self.counts.values()) >= 400 and min(self.counts.values()) >= 20


def test_certificates_replaced_under_load(service: Installation, files: Files) -> None:
    """While certificates are replaced, calls over old and over new connections, gRPC and HTTPS, all succeed; and each
    new connection is shown the new one."""
    gateway_address = service.started.gateway_address
    assert gateway_address is not None
    replaced = 0
    with Load(service, files) as load:
        while not load.failures and (replaced < 10 or not load.enough):
            serial = files.replace()
            assert presented(service.started.grpc_address) == serial
            assert presented(gateway_address, "http/1.1") == serial
            replaced += 1
    assert load.failures == []
    print(f"{replaced} replaced; calls {load.counts}")


@pytest.mark.parametrize("fault", ["expired", "another's key", "half-written", "gone", "nonsense"])
def test_what_cannot_be_used_is_not(service: Installation, files: Files, fault: str) -> None:
    """A replacement that can't be used leaves the old certificate in its place, is logged as one error, and the next
    one that can be used is taken."""
    serial = files.replace()
    grpc_address = service.started.grpc_address
    assert presented(grpc_address) == serial
    before = service.log.getvalue().count("certificate not replaced")
    content = files.certificate.read_bytes()
    if fault == "expired":
        now = datetime.now(UTC)
        dates = {"not_before": now - timedelta(days=2), "not_after": now - timedelta(days=1)}
        made = files.ca.issue_cert("127.0.0.1", **dates)
        both = made.private_key_pem.bytes() + made.cert_chain_pems[0].bytes()  # at once, as a mounted Secret changes
        shutil.copy(files.key, files.folder / "kept.key")
        put(files.key, both)
        put(files.certificate, both)
    elif fault == "another's key":
        put(files.key, files.ca.issue_cert("127.0.0.1").private_key_pem.bytes())
    elif fault == "half-written":
        put(files.certificate, content[: len(content) // 2])
    elif fault == "gone":
        files.certificate.unlink()
    else:
        put(files.certificate, b"nonsense")
    for _ in range(3):
        assert presented(grpc_address) == serial
        assert post(service, files) == 200
    said = service.log.getvalue()
    assert said.count("certificate not replaced") == before + 1
    assert "PRIVATE KEY" not in said
    serial = files.replace()
    assert presented(grpc_address) == serial


@pytest.mark.parametrize("door", ["grpc", "gateway", "mtls"])
def test_old_versions_are_refused(service: Installation, door: str) -> None:
    """TLS 1.1 is refused; the same client is let in by TLS 1.2."""
    address = getattr(service.started, f"{door}_address")
    openssl = shutil.which("openssl")
    assert openssl
    for flag, accepted in (("-tls1_1", False), ("-tls1_2", True)):
        done = subprocess.run(
            [openssl, "s_client", "-connect", str(address), flag, "-cipher", "DEFAULT@SECLEVEL=0", "-alpn", "h2"],
            input=b"",
            capture_output=True,
            timeout=CALL_SECONDS,
            check=False,
        )
        shaken = b"Cipher is (NONE)" not in done.stdout and b"BEGIN CERTIFICATE" in done.stdout
        assert shaken == accepted, done.stdout + done.stderr


def test_plain_text_to_a_tls_port(service: Installation) -> None:
    """A client that speaks plain text is refused by every port but the probes', and those with TLS go on."""
    for address in (service.started.grpc_address, service.started.mtls_address):
        with grpc.insecure_channel(str(address)) as channel, pytest.raises(grpc.RpcError) as refused:
            health(channel)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(str(service.started.health_address)) as channel:
        assert health(channel) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as refused:
            issue(channel, service)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_the_mutual_listener_demands_a_certificate(service: Installation, files: Files) -> None:
    """It answers a client with a certificate of the CA; one without, or with another CA's, gets no connection."""
    address = service.started.mtls_address
    with connected(address, files.client()) as channel:
        assert issue(channel, service)
    for credentials in (files.trusting, files.client(ca=trustme.CA())):
        with connected(address, credentials) as channel, pytest.raises(grpc.RpcError) as refused:
            issue(channel, service)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    with connected(service.started.grpc_address, files.trusting) as channel:
        assert issue(channel, service)


def test_clients_ca_is_replaced(tmp_path: Path) -> None:
    """The CAs of clients are read again too: one that is taken out is refused at the next connection."""
    files, clients = Files(tmp_path), trustme.CA()
    trusted = tmp_path / "clients.pem"
    put(trusted, clients.cert_pem.bytes())
    settings = files.settings | {"grpc_mtls_address": ANY, "mtls_client_ca_file": trusted}
    with Installation(tmp_path / "service", **settings) as service:
        with connected(service.started.mtls_address, files.client(ca=clients)) as channel:
            assert issue(channel, service)
        put(trusted, trustme.CA().cert_pem.bytes())
        with connected(service.started.mtls_address, files.client(ca=clients)) as channel:
            with pytest.raises(grpc.RpcError) as refused:
                issue(channel, service)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("fault", ["expired", "another's key", "encrypted key", "gone", "nonsense"])
def test_a_start_with_unusable_files(tmp_path: Path, fault: str) -> None:
    """Files that can't be used refuse the start, in one sentence that names the variable and quotes nothing."""
    files = Files(tmp_path)
    if fault == "expired":
        now = datetime.now(UTC)
        files.replace(not_before=now - timedelta(days=2), not_after=now - timedelta(days=1))
    elif fault == "another's key":
        put(files.key, files.ca.issue_cert("127.0.0.1").private_key_pem.bytes())
    elif fault == "encrypted key":
        put(files.key, encrypted(files.key.read_bytes()))
    elif fault == "gone":
        files.key.unlink()
    else:
        put(files.certificate, b"nonsense")
    with pytest.raises(InvalidSettings, match=r"^ARTSTORE_TLS_[A-Z]+_FILE .*\.$") as refused:
        Certificates(files.certificate, files.key, now=lambda: datetime.now(UTC), logger=configured("info", Log()))
    assert "\n" not in str(refused.value)


def encrypted(key: bytes) -> bytes:
    return pem.load_pem_private_key(key, None).private_bytes(
        pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"password")
    )


CERTIFICATE = {"tls_certificate_file": Path("tls.crt")}
PAIR = CERTIFICATE | {"tls_key_file": Path("tls.key")}


@pytest.mark.parametrize(
    "contradiction",
    [
        CERTIFICATE,
        {"tls_key_file": Path("tls.key")},
        {"grpc_mtls_address": ANY, "mtls_client_ca_file": Path("ca.pem")},
        PAIR | {"grpc_mtls_address": ANY},
        PAIR | {"mtls_client_ca_file": Path("ca.pem")},
        PAIR | {"insecure_public": True},
    ],
    ids=lambda given: "+".join(given),
)
def test_contradictions(contradiction: dict[str, Any]) -> None:
    """Settings of TLS that contradict each other, or are given by half, are refused."""
    with pytest.raises(InvalidSettings):
        Settings(**contradiction)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
        ("identity.svc", False),
        ("::ffff:10.0.0.7", False),
    ],
)
def test_where_plain_text_may_listen(host: str, allowed: bool) -> None:
    """Without TLS only the loopback is allowed, unless somebody says otherwise; with TLS every address is."""
    address = Address(host=host, port=1)
    refuse_plain_text(Settings(insecure_public=True), address)
    refuse_plain_text(Settings(**PAIR), address)
    refuse_plain_text(Settings(metrics_address=address, health_address=address), None)
    if allowed:
        refuse_plain_text(Settings(), ANY, address)
    else:
        with pytest.raises(InvalidSettings, match="ARTSTORE_INSECURE_PUBLIC"):
            refuse_plain_text(Settings(), ANY, address)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("serve", "ARTSTORE_GRPC_ADDRESS"),
        ("serve", "ARTSTORE_GATEWAY_ADDRESS"),
        ("gateway", "ARTSTORE_GATEWAY_ADDRESS"),
    ],
)
def test_commands_refuse_plain_text_in_public(tmp_path: Path, command: str, variable: str) -> None:
    """The commands that serve refuse it before they bind, with the code of invalid settings."""
    public = {"ARTSTORE_ISSUER": "http://identity.test", variable: "0.0.0.0:0"}
    done = run(command, folder=tmp_path, **(ANY_PORT | public))
    assert done.returncode == 10, done.stderr
    assert done.stderr.count("\n") == 1
    assert "ARTSTORE_INSECURE_PUBLIC" in done.stderr


@pytest.mark.slow
def test_the_commands_over_tls(tmp_path: Path) -> None:
    """Commands reach a service by TLS, and by mutual TLS; a gateway that runs alone calls it by TLS and has a
    certificate itself; SIGTERM ends all of it with 0, the mutual listener with a watch open too."""
    files = Files(tmp_path)
    mine = files.ca.issue_cert("operator.artstore")
    put(tmp_path / "mine.crt", mine.cert_chain_pems[0].bytes())
    put(tmp_path / "mine.key", mine.private_key_pem.bytes())
    mutual = {"ARTSTORE_GRPC_MTLS_ADDRESS": "127.0.0.1:0", "ARTSTORE_MTLS_CLIENT_CA_FILE": str(files.ca_file)}
    everything = ANY_PORT | files.variables | mutual
    with Running("serve", folder=tmp_path, until="Get a token", **everything) as running:
        target = running.found(r'"grpc":"([^"]+)"')
        mtls = running.found(r'"mtls":"([^"]+)"')
        called = ("health", "--target", target)
        assert run(*called, "--ca-file", str(files.ca_file), folder=tmp_path).returncode == 0
        assert run(*called, folder=tmp_path, ARTSTORE_CA_FILE=str(files.ca_file)).returncode == 0
        assert run(*called, folder=tmp_path).returncode == 8
        own = ("--client-certificate", "mine.crt", "--client-certificate-key", "mine.key")
        called = ("health", "--target", mtls, "--ca-file", str(files.ca_file))
        assert run(*called, *own, folder=tmp_path).returncode == 0
        assert run(*called, folder=tmp_path).returncode == 8
        assert run(*called, *own[:2], folder=tmp_path).returncode == 10
        front = ("gateway", "--target", mtls, "--ca-file", str(files.ca_file), *own)
        variables = ANY_PORT | files.variables
        with Running(*front, folder=tmp_path, until="listens on", **variables) as gateway:
            url = gateway.found(r"listens on (https://\S+) ")
            context = ssl.create_default_context(cafile=str(files.ca_file))
            opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
            with opener.open(f"{url}/health/ready", timeout=CALL_SECONDS) as answer:
                assert answer.status == 200
            assert gateway.stop() == 0
        credentials = grpc.ssl_channel_credentials(
            files.ca_file.read_bytes(), mine.private_key_pem.bytes(), mine.cert_chain_pems[0].bytes()
        )
        with connected(Address(host="127.0.0.1", port=int(mtls.rpartition(":")[2])), credentials) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            assert running.stop() == 0
            assert all(each.status == health_pb2.HealthCheckResponse.NOT_SERVING for each in watch)
