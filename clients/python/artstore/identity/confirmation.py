"""Tokens that are bound to a client's certificate (RFC 8705 §3): whoever bears one must have shaken hands with that
certificate, so that a stolen one is of no use without its key.

Knows the claim and the thumbprint; where a connection's certificate is found is for the doors (grpc_server.py).
"""

from __future__ import annotations

import hashlib
import ssl
from base64 import urlsafe_b64encode
from functools import lru_cache
from typing import Any

from artstore.identity.caller import VerifiedToken
from artstore.identity.refusals import WrongCertificate

CONFIRMATION, THUMBPRINT = "cnf", "x5t#S256"
"""RFC 7800 §3.1, RFC 8705 §3.1."""


@lru_cache(maxsize=4096)
def thumbprint(certificate: bytes) -> str:
    """The SHA-256 of a certificate in PEM, in base64url. Remembered, since a connection's calls all come with one."""
    der = ssl.PEM_cert_to_DER_cert(certificate.decode("ascii").strip())
    return urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode("ascii")


def presented_certificate(auth_context: Any) -> bytes:
    """The certificate in a gRPC call's `auth_context()`, in PEM; empty where the client has shown none."""
    found = auth_context.get("x509_pem_cert")
    return bytes(found[0]) if found else b""


def presented(auth_context: Any) -> str:
    """The thumbprint of that certificate; empty where there is none."""
    certificate = presented_certificate(auth_context)
    return thumbprint(certificate) if certificate else ""


def is_bound(verified: VerifiedToken) -> bool:
    return CONFIRMATION in verified.claims


def confirm(verified: VerifiedToken, certificate: str) -> None:
    """Raises WrongCertificate for a bound token unless `certificate` is the thumbprint of the one it is bound to. One
    that is bound to anything else is refused too: it could not be proven here."""
    if is_bound(verified) and (not certificate or verified.claims[CONFIRMATION] != {THUMBPRINT: certificate}):
        raise WrongCertificate("It is bound to a client's certificate, which its caller did not call by.")
