"""Whose client certificate it is, as an account names it: the metadata of RFC 8705 §2.1.2, exactly one of which an
account has, written `name:value`. No I/O.

Values are compared in one form each: DNS names in lower case, IP addresses as RFC 5952 writes them, distinguished names
as RFC 4514 does and letter by letter (RFC 4517 §4.2.15 would fold case), URIs and mail addresses as they are. Whether a
certificate comes from a CA that is trusted is for the listener that took it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from cryptography import x509

from artstore_grpc.errors import invalid

FIELD = "certificate_subject"
MAX_LENGTH = 300
REMEMBERED = 4096
"""Certificates whose names are kept: a connection's comes with each of its calls."""
DNS_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+")
EMAIL = re.compile(r"[\x21-\x7e]+@[\x21-\x7e]+")


def dns_name(value: str) -> str:
    if len(value) > 253 or not DNS_NAME.fullmatch(value.lower()):
        raise ValueError("a DNS name, without a wildcard")
    return value.lower()


def ip_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise ValueError("an IP address") from None


def uri(value: str) -> str:
    if not URI.fullmatch(value):
        raise ValueError("an absolute URI")
    return value


def email(value: str) -> str:
    if not EMAIL.fullmatch(value):
        raise ValueError("a mail address")
    return value


def distinguished_name(value: str) -> str:
    try:
        found = x509.Name.from_rfc4514_string(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("a distinguished name as RFC 4514 writes it") from None
    if not list(found):
        raise ValueError("a distinguished name that isn't empty")
    return found.rfc4514_string()


FORMS: dict[str, Callable[[str], str]] = {
    "subject_dn": distinguished_name,
    "san_dns": dns_name,
    "san_uri": uri,
    "san_ip": ip_address,
    "san_email": email,
}
"""RFC 8705 §2.1.2's names without their prefix `tls_client_auth_`, and what brings a value into its one form. Each
raises ValueError with what it wants."""


def subject(value: str) -> str:
    """A subject in the form that it is kept and compared in; empty for none. Raises InvalidRequest."""
    if not value:
        return ""
    if len(value) > MAX_LENGTH:
        raise invalid(FIELD, f"must have at most {MAX_LENGTH} characters")
    kind, colon, rest = value.partition(":")
    if not colon or kind not in FORMS:
        raise invalid(FIELD, f"must begin with one of {', '.join(f'{name}:' for name in FORMS)}")
    try:
        return f"{kind}:{FORMS[kind](rest)}"
    except ValueError as wanted:
        raise invalid(FIELD, f"must have {wanted} after {kind}:") from None


@lru_cache(maxsize=REMEMBERED)
def subjects(pem: bytes) -> frozenset[str]:
    """Every subject that a certificate has; none for one that can't be read."""
    try:
        return frozenset(_of(x509.load_pem_x509_certificate(pem)))
    except ValueError:
        return frozenset()


def _of(certificate: x509.Certificate) -> Iterator[str]:
    if list(certificate.subject):
        yield f"subject_dn:{certificate.subject.rfc4514_string()}"
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    yield from (f"san_dns:{name.lower()}" for name in names.get_values_for_type(x509.DNSName))
    yield from (f"san_uri:{name}" for name in names.get_values_for_type(x509.UniformResourceIdentifier))
    yield from (f"san_ip:{name}" for name in names.get_values_for_type(x509.IPAddress))
    yield from (f"san_email:{name}" for name in names.get_values_for_type(x509.RFC822Name))
