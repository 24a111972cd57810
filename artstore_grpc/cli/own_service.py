"""Where `health` asks when nobody says where: at the service that this very environment is the configuration of.

A container's health check has the service's settings around it and nothing else. The port for probes is asked if there
is one; else gRPC's own, by TLS where that has a certificate. Reads the addresses alone, and no secret.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from socket import create_connection
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from artstore_grpc.cli import environment
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.settings import WILDCARDS, Address, InvalidSettings


@dataclass(frozen=True, slots=True)
class Place:
    """A service to ask, and how to reach it; without credentials in plain text."""

    target: str
    credentials: grpc.ChannelCredentials | None = None
    options: tuple[tuple[str, Any], ...] = ()


def own_service(timeout_seconds: float, environ: Mapping[str, str] | None = None) -> Place:
    """The service of this environment. `timeout_seconds` bounds the look at its certificate. Raises InvalidSettings for
    a port that only the service knows, and Failure where nothing answers."""
    doors = environment.some(("health_address", "grpc_address", "tls_certificate_file"), environ)
    probes: Address | None = doors.health_address
    address = probes or doors.grpc_address
    if not address.port:
        name = "HEALTH" if probes else "GRPC"
        raise InvalidSettings(f"ARTSTORE_{name}_ADDRESS has port 0, so that only the log knows it; give --target.")
    called = reachable(address)
    if probes or doors.tls_certificate_file is None:
        return Place(str(called))
    return by_its_certificate(called, timeout_seconds)


def reachable(address: Address) -> Address:
    """Where this machine reaches what listens there: every interface includes the loopback."""
    if address.host not in WILDCARDS:
        return address
    return Address(host="::1" if address.host == "::" else "127.0.0.1", port=address.port)


def by_its_certificate(address: Address, timeout_seconds: float) -> Place:
    """By TLS, with the certificate that is shown there taken as it is: the address is this machine's own, no secret
    passes, and a health check must not fail because nobody put the loopback into a certificate. Nor is the file's
    taken, which may be one that the service has refused to replace its own by."""
    certificate = shown(address, timeout_seconds)
    credentials = grpc.ssl_channel_credentials(certificate.public_bytes(Encoding.PEM))
    return Place(str(address), credentials, (("grpc.ssl_target_name_override", name_in(certificate)),))


def shown(address: Address, timeout_seconds: float) -> x509.Certificate:
    """The certificate that a server presents. Raises Failure."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            create_connection((address.host, address.port), timeout_seconds) as raw,
            context.wrap_socket(raw) as connection,
        ):
            der = connection.getpeercert(binary_form=True)
    except OSError as error:
        said = error.strerror or "it doesn't answer"
        raise Failure(Exit.UNAVAILABLE, "UNREACHABLE", f"The service at {address} can't be reached: {said}.") from error
    assert der is not None, "a server shows a certificate, or the handshake fails"
    return x509.load_der_x509_certificate(der)


def name_in(certificate: x509.Certificate) -> str:
    """A name that the certificate is good for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    for name in names.get_values_for_type(x509.DNSName):
        return name.replace("*", "any", 1)
    return str(names.get_values_for_type(x509.IPAddress)[0])
