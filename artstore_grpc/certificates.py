"""A server's certificate and its key in files, read again when they change: no restart, no connection lost.

What is read is checked before it is used: a pair that doesn't match, is half-written or has expired leaves the one in
use in its place. Whether they changed is asked at each new connection, which costs a `stat` of each file.
Knows neither gRPC nor HTTP.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from artstore_grpc.settings import Address, InvalidSettings, Settings
from artstore_grpc.telemetry.logs import Logger

ALPN = ["http/1.1"]
"""What the gateway speaks (RFC 7301)."""

Stamp = tuple[tuple[int, int, int], ...]


class Unusable(Exception):
    """The files can't be used; the message goes on after their variable's names: "… can't be read"."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain and its key, in PEM, that belong together, and the CAs that clients' certificates must come from."""

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes
    expires: datetime
    context: ssl.SSLContext
    """For HTTPS; TLS 1.2 and later."""


class Certificates:
    """The pair in use. Raises InvalidSettings where the files can't be used at the start."""

    def __init__(
        self,
        certificate_file: Path,
        key_file: Path,
        *,
        client_ca_file: Path | None = None,
        now: Callable[[], datetime],
        logger: Logger,
    ) -> None:
        self._certificate_file = certificate_file
        self._key_file = key_file
        self._client_ca_file = client_ca_file
        self._now = now
        self._logger = logger
        self._lock = threading.Lock()  # gRPC asks in a thread of its own
        try:
            self._stamp = self._look()
            self._pair = self._read()
        except Unusable as error:
            raise InvalidSettings(f"{error}.") from None

    def current(self) -> Pair:
        """The pair for a new connection. What can't be used is logged once, and tried again when it changes."""
        with self._lock:
            try:
                stamp = self._look()
                if stamp != self._stamp:
                    self._replace(stamp)
            except Unusable as error:
                self._refuse((), str(error))
            return self._pair

    def _replace(self, stamp: Stamp) -> None:
        try:
            pair = self._read()
        except Unusable as error:
            self._refuse(stamp, str(error))
            return
        if self._look() != stamp:
            return  # it changed under our hands: the next connection looks again
        self._pair, self._stamp = pair, stamp
        self._logger.info("certificate replaced", expires=pair.expires.isoformat())

    def _refuse(self, stamp: Stamp, problem: str) -> None:
        if stamp != self._stamp:
            self._stamp = stamp
            self._logger.error("certificate not replaced", problem=problem, expires=self._pair.expires.isoformat())

    def _files(self) -> dict[str, Path]:
        files = {"ARTSTORE_TLS_CERTIFICATE_FILE": self._certificate_file, "ARTSTORE_TLS_KEY_FILE": self._key_file}
        return files | ({"ARTSTORE_MTLS_CLIENT_CA_FILE": self._client_ca_file} if self._client_ca_file else {})

    def _look(self) -> Stamp:
        """What tells a file from its successor; a Secret that Kubernetes mounts is replaced by its symbolic link."""
        stamp: list[tuple[int, int, int]] = []
        for variable, path in self._files().items():
            try:
                found = path.stat()
            except OSError as error:
                raise Unusable(f"{variable} names a file that can't be read: {error.strerror}") from None
            stamp.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(stamp)

    def _read(self) -> Pair:
        contents: list[bytes] = []
        for variable, path in self._files().items():
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise Unusable(f"{variable} names a file that can't be read: {error.strerror}") from None
        chain, key = contents[0], contents[1]
        client_ca = contents[2] if self._client_ca_file else b""
        expires = checked(chain, key, self._now())
        if self._client_ca_file:
            parsed_chain("ARTSTORE_MTLS_CLIENT_CA_FILE", client_ca)
        return Pair(chain, key, client_ca, expires, self._context())

    def _context(self) -> ssl.SSLContext:
        context = empty_context()
        try:
            context.load_cert_chain(self._certificate_file, self._key_file, password="")  # never asks a terminal
        except (OSError, ValueError):
            raise Unusable("ARTSTORE_TLS_CERTIFICATE_FILE and ARTSTORE_TLS_KEY_FILE can't be used for TLS") from None
        return context

    def https_context(self) -> ssl.SSLContext:
        """A context for a server that keeps it: each handshake takes the pair that is then in use."""
        context = empty_context()

        def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self.current().context

        context.sni_callback = choose  # called for each ClientHello, with a server name or without
        return context


def empty_context() -> ssl.SSLContext:
    """What HTTPS is served by, without a certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(ALPN)
    return context


def checked(chain: bytes, key: bytes, now: datetime) -> datetime:
    """When the first certificate of a chain expires. Raises Unusable where it isn't valid now, or isn't the key's."""
    first = parsed_chain("ARTSTORE_TLS_CERTIFICATE_FILE", chain)[0]
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise Unusable("ARTSTORE_TLS_KEY_FILE must hold one private key in PEM, not encrypted") from None
    ours, theirs = (
        each.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        for each in (private.public_key(), first.public_key())
    )
    if ours != theirs:
        raise Unusable("ARTSTORE_TLS_KEY_FILE isn't the key of ARTSTORE_TLS_CERTIFICATE_FILE")
    if not first.not_valid_before_utc <= now < first.not_valid_after_utc:
        raise Unusable("ARTSTORE_TLS_CERTIFICATE_FILE names a certificate that has expired, or isn't valid yet")
    return first.not_valid_after_utc


def parsed_chain(variable: str, pem: bytes) -> list[x509.Certificate]:
    """The certificates in a PEM file. Raises Unusable for none, and for what is none."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise Unusable(f"{variable} must hold certificates in PEM") from None


def of_settings(settings: Settings, now: Callable[[], datetime], logger: Logger) -> Certificates | None:
    """The certificates that the settings name, if any. Raises InvalidSettings."""
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    return Certificates(
        settings.tls_certificate_file,
        settings.tls_key_file,
        client_ca_file=settings.mtls_client_ca_file,
        now=now,
        logger=logger,
    )


def refuse_plain_text(settings: Settings, *addresses: Address | None) -> None:
    """Raises InvalidSettings where secrets and tokens would cross a network in plain text, and nobody said so.

    The metrics and the probes' port carry neither, and so are not asked about.
    """
    if settings.tls or settings.insecure_public:
        return
    for address in addresses:
        if address is not None and not address.loopback:
            raise InvalidSettings(
                f"{address} is not the loopback, and there secrets and tokens would pass in plain text: give "
                "ARTSTORE_TLS_CERTIFICATE_FILE and ARTSTORE_TLS_KEY_FILE, or, where a mesh or an ingress encrypts, "
                "ARTSTORE_INSECURE_PUBLIC=true (serve --insecure-public)."
            )
