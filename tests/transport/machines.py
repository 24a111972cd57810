"""Machines with certificates: their files, their connections, and the calls that they make."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import grpc
import trustme
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1 import token_service_pb2_grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from artstore_grpc.settings import Address
from tests.installation import Installation

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


def post(service: Installation, files: Files) -> int:
    """The status of a token request at the gateway, on a connection of its own."""
    context = ssl.create_default_context(cafile=str(files.ca_file))
    form = "grant_type=client_credentials&client_id={0.client_id}&client_secret={0.client_secret}"
    url = f"https://{service.started.gateway_address}/oauth2/token"
    request = Request(url, data=form.format(service.administrator).encode())
    with build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open(request, timeout=CALL_SECONDS) as answer:
        return int(answer.status)
