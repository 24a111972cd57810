"""Where key sets come from: the service's gRPC API, a URL, or what an issuer's metadata names (RFC 8414).

Each source asks once and blocks for as long, bounded in time and size; key_sets.py calls it in a thread and keeps what
it brought. It follows no redirect and knows no proxy: whoever can answer here decides which tokens are good.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import grpc
from artstore.identity.channels import Place
from artstore.identity.connection import Connection
from artstore.identity.discovery import Discovery
from artstore.identity.refusals import KeySetError
from artstore.identity.v1 import token_service_pb2 as pb
from artstore.identity.v1.token_service_pb2_grpc import TokenServiceStub
from artstore.identity.verification_keys import as_jwk

MAX_DOCUMENT = 1024 * 1024
"""Bytes. A set of a hundred RSA keys is 50 KB."""
METADATA_PATH = "/.well-known/oauth-authorization-server"
"""RFC 8414 §3."""
ACCEPTED = "application/jwk-set+json, application/json"
MAX_AGE_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source brought: `document` is the parsed set, None where the one with the given ETag still holds."""

    document: Any
    max_age: float | None = None
    """Seconds that it may be kept; None where its server doesn't say."""
    etag: str = ""


class KeySource(Protocol):
    """Asks for a key set."""

    def fetch(self, etag: str, timeout_seconds: float) -> Fetched:
        """The set as it is now; `etag` is that of the one that is held. Raises KeySetError."""
        ...


class GrpcKeys:
    """The key set of the service at `target`, or of a replica that a `discovery` names, by GetJsonWebKeySet; without
    `credentials` in plain text."""

    def __init__(
        self,
        target: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        *,
        discovery: Discovery | None = None,
    ) -> None:
        self._place = Place(target, discovery, credentials)

    @classmethod
    def of(cls, client: Connection) -> GrpcKeys:
        """From where a client is connected to, over a connection of its own."""
        return cls(client.target, client.channel_credentials, discovery=client.place.discovery)

    def fetch(self, etag: str, timeout_seconds: float) -> Fetched:
        """As KeySource has it."""
        target = self._place.current_target()
        if not target:
            raise KeySetError("No replica to ask for GetJsonWebKeySet is known.", "UNREACHABLE")
        channel = self._place.open_sync(target)
        try:
            answer = TokenServiceStub(channel).GetJsonWebKeySet(pb.GetJsonWebKeySetRequest(), timeout=timeout_seconds)
        except grpc.RpcError as error:
            code = getattr(error, "code", lambda: grpc.StatusCode.UNKNOWN)()
            raise KeySetError(
                f"{self._place} does not answer GetJsonWebKeySet ({code.name}): check the target, and whether it"
                " wants TLS.",
                "UNREACHABLE",
            ) from error
        finally:
            channel.close()
        max_age = answer.max_age.ToTimedelta().total_seconds() if answer.HasField("max_age") else None
        return Fetched({"keys": [as_jwk(key) for key in answer.keys]}, max_age)


class UrlKeys:
    """The key set at a URL, such as `https://identity.example/.well-known/jwks.json`."""

    def __init__(self, url: str, *, ssl_context: ssl.SSLContext | None = None, plaintext: bool = False) -> None:
        """`ssl_context` says which certificates are trusted, by default those of the system. Plain http is only for
        this machine itself, unless `plaintext` says that the network can be trusted. Raises ValueError."""
        self._url = checked_url(url, plaintext=plaintext)
        self._ssl_context = ssl_context

    def fetch(self, etag: str, timeout_seconds: float) -> Fetched:
        """As KeySource has it."""
        answer = Question(self._url, self._ssl_context, timeout_seconds).ask(etag)
        return Fetched(answer.document, answer.max_age, answer.etag)


class IssuerKeys:
    """The key set that an issuer's metadata names (RFC 8414 §3): one request more, the first time and after a
    failure."""

    def __init__(self, issuer: str, *, ssl_context: ssl.SSLContext | None = None, plaintext: bool = False) -> None:
        """As UrlKeys; `issuer` is what the tokens' `iss` is."""
        url = checked_url(issuer, plaintext=plaintext)
        self._metadata = url._replace(path=METADATA_PATH + url.path.rstrip("/"))
        self._issuer = issuer
        self._ssl_context = ssl_context
        self._plaintext = plaintext
        self._found: UrlKeys | None = None

    def fetch(self, etag: str, timeout_seconds: float) -> Fetched:
        """As KeySource has it."""
        try:
            source = self._found or self._discovered(timeout_seconds)
            fetched = source.fetch(etag, timeout_seconds)
        except KeySetError:
            self._found = None
            raise
        self._found = source
        return fetched

    def _discovered(self, timeout_seconds: float) -> UrlKeys:
        document = Question(self._metadata, self._ssl_context, timeout_seconds).ask("").document
        where = self._metadata.geturl()
        if not isinstance(document, dict) or document.get("issuer") != self._issuer:
            said = document.get("issuer") if isinstance(document, dict) else None
            raise KeySetError(
                f"{where} is the metadata of the issuer {str(said)[:200]!r}, not of {self._issuer!r} (RFC 8414 §3.3):"
                " give the issuer letter by letter.",
                "WRONG_ISSUER",
            )
        named = document.get("jwks_uri")
        try:
            url = UrlKeys(str(named), ssl_context=self._ssl_context, plaintext=self._plaintext)
        except ValueError as error:
            raise KeySetError(f"{where} names no usable jwks_uri: {error}", "NO_JWKS_URI") from None
        if self._metadata.scheme == "https" and urlsplit(str(named)).scheme != "https":
            raise KeySetError(f"{where} is had by TLS, and names a jwks_uri in plain text.", "NO_JWKS_URI")
        return url


def checked_url(url: str, *, plaintext: bool) -> SplitResult:
    """Raises ValueError, which says what is wrong."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or parts.username is not None:
        raise ValueError(f"{url!r} is not an https URL without a fragment or a user.")
    parts.port  # noqa: B018  # raises for one that is no number
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{url!r} has characters that must be percent-encoded.")
    if parts.scheme == "http" and not plaintext and not is_loopback(parts.hostname):
        raise ValueError(
            f"{url!r} is plain http: whoever is on the way could make any token. Use https, or give a source with"
            " plaintext=True where the network itself is trusted."
        )
    return parts


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class Answer:
    document: Any
    max_age: float | None
    etag: str


class Question:
    """One GET of a JSON document, all of it within a time and a size."""

    def __init__(self, url: SplitResult, context: ssl.SSLContext | None, timeout_seconds: float) -> None:
        self._url, self._where = url, url.geturl()
        self._timeout_seconds = timeout_seconds
        assert url.hostname
        if url.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                url.hostname, url.port, timeout=timeout_seconds, context=context or ssl.create_default_context()
            )
        else:
            self._connection = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout_seconds)

    def ask(self, etag: str) -> Answer:
        """Raises KeySetError."""
        # A timeout of a socket is for each of its reads: who sends a byte a second would hold this for a week.
        cut = threading.Timer(self._timeout_seconds, self._cut_off)
        cut.daemon = True
        cut.start()
        try:
            return self._asked(etag)
        except (OSError, http.client.HTTPException) as error:
            raise KeySetError(
                f"{self._where} does not answer ({type(error).__name__}: {error}): check the URL, the network and the"
                " certificate.",
                "UNREACHABLE",
            ) from error
        finally:
            cut.cancel()
            self._connection.close()

    def _cut_off(self) -> None:
        opened = self._connection.sock
        if opened is not None:
            try:
                socket.socket.shutdown(opened, socket.SHUT_RDWR)  # TLS's own would take the reader's state away
            except OSError:
                return  # it has ended by itself

    def _asked(self, etag: str) -> Answer:
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        headers = {"Accept": ACCEPTED, "Accept-Encoding": "identity"} | ({"If-None-Match": etag} if etag else {})
        self._connection.request("GET", path, headers=headers)
        response = self._connection.getresponse()
        try:
            return self._read(response, etag)
        finally:
            response.close()

    def _read(self, response: http.client.HTTPResponse, etag: str) -> Answer:
        max_age = kept_for(response.headers)
        if response.status == 304 and etag:
            return Answer(None, max_age, etag)
        self._check(response)
        body = response.read(MAX_DOCUMENT + 1)
        if len(body) > MAX_DOCUMENT:
            raise KeySetError(f"{self._where} sends more than {MAX_DOCUMENT} bytes: it is no key set.", "TOO_BIG")
        if response.length:  # it read less than was announced
            raise http.client.IncompleteRead(body, response.length)
        return Answer(self._parsed(body), max_age, single_line(response.headers.get("ETag", "")))

    def _check(self, response: http.client.HTTPResponse) -> None:
        if 300 <= response.status < 400:
            to = single_line(response.headers.get("Location", ""))
            raise KeySetError(
                f"{self._where} redirects ({response.status}) to {to[:200]!r}, and redirects are not followed: if that"
                " is where the keys are, give that URL.",
                "REDIRECTED",
            )
        if response.status != 200:
            raise KeySetError(f"{self._where} answers {response.status}: check the URL.", "HTTP_STATUS")

    def _parsed(self, body: bytes) -> Any:
        try:
            return json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError):
            what = "HTML" if body.lstrip()[:1] == b"<" else "empty" if not body.strip() else "no JSON"
            raise KeySetError(
                f"{self._where} is {what}: it is a page for people or a proxy's, no key set. Check the URL.", "NOT_JSON"
            ) from None


def kept_for(headers: Any) -> float | None:
    """Seconds that an answer may be kept (RFC 9111 §4.2.1), those that a cache had it already taken off; None where
    it isn't said."""
    directives = [each.strip().lower() for each in ",".join(headers.get_all("Cache-Control", [])).split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    for each in directives:
        name, _, value = each.partition("=")
        if name.strip() == "max-age":
            return max(whole(value) - whole(headers.get("Age", "")), 0.0)
    return None


def whole(text: str) -> float:
    """A number of seconds; 0 for what is none."""
    digits = text.strip().strip('"')
    return float(digits) if digits.isascii() and digits.isdigit() and len(digits) <= MAX_AGE_DIGITS else 0.0


def single_line(value: str) -> str:
    """A header's value, if it can be sent back as one."""
    return value if value.isascii() and value.isprintable() else ""
