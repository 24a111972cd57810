"""TLS on gRPC and the gateway, and the listener that demands clients' certificates: who gets in, and who doesn't."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from artstore_grpc.settings import Address
from tests.cli.processes import ANY_PORT, Running, run
from tests.installation import Installation
from tests.transport.machines import CALL_SECONDS, Files, connected, health, issue, put


def test_the_issuer_follows(service: Installation) -> None:
    """With TLS the issuer that nobody gave is an https URL."""
    assert service.issuer == f"https://{service.started.gateway_address}"


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
