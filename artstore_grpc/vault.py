"""What is sealed at rest and how: AES-256-GCM under the key-encryption key, and keys derived from it (HKDF, RFC 5869).

A sealed value is `key id (4 bytes) ‖ nonce (12) ‖ ciphertext and tag`. The context (what it is, and whose) is
authenticated with it, so that a value moved to another row does not open. Derived keys never leave this module.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
KEY_ID_BYTES = 4
NONCE_BYTES = 12
"""NIST SP 800-38D §5.2.1.1; random nonces stay safe below 2^32 values under one key (§8.3)."""
DENIAL_BYTES = 96
"""Every sealed cause has this length before sealing, so that its length tells nothing."""


class WrongKey(Exception):
    """A value was sealed under another key-encryption key, or is damaged; the message says which."""


def new_key() -> str:
    """A fresh key-encryption key, in base64."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def framed(*parts: bytes) -> bytes:
    """Parts with their lengths before them, so that no two lists give the same bytes."""
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


class Vault:
    """Seals, opens and derives. Raises WrongKey on a key-encryption key that isn't 32 bytes of base64."""

    def __init__(self, key_encryption_key: str) -> None:
        try:
            key = base64.b64decode(key_encryption_key.strip(), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise WrongKey("The key-encryption key must be 32 bytes in base64.")
        self.key_id = hashlib.sha256(b"artstore key id" + key).digest()[:KEY_ID_BYTES]
        self._key = key
        self._aead = AESGCM(self.derive("seal"))
        self._tags = HMAC(self.derive("secret tag"), SHA256())
        self._request_key = self.derive("request id")
        self._denial = AESGCM(self.derive("denial id"))

    def derive(self, purpose: str) -> bytes:
        """A 32-byte key for one purpose (RFC 5869)."""
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"artstore " + purpose.encode()).derive(
            self._key
        )

    def seal(self, value: bytes, *context: str) -> bytes:
        return self._sealed(self._aead, value, context)

    def open(self, sealed: bytes, *context: str) -> bytes:
        """The value. Raises WrongKey when it was sealed under another key or for another context."""
        return self._opened(self._aead, sealed, context)

    def seal_answer(self, value: bytes, request_id: str, *context: str) -> bytes:
        """Seals an answer under a key that needs the request_id too, which is stored nowhere (DESIGN §3)."""
        return self._sealed(self._answer_aead(request_id), value, context)

    def open_answer(self, sealed: bytes, request_id: str, *context: str) -> bytes:
        return self._opened(self._answer_aead(request_id), sealed, context)

    def secret_tag(self, client_id: str, secret_id: str, secret: str) -> bytes:
        """The keyed digest that stands for bcrypt once a secret has succeeded (DESIGN §4)."""
        keyed = self._tags.copy()  # with the key schedule made: half the price of a new one
        keyed.update(framed(b"1", client_id.encode(), secret_id.encode(), secret.encode()))
        return keyed.finalize()

    def request_digest(self, *parts: bytes) -> bytes:
        """A keyed digest of what identifies a request, so that the request_id itself is never stored."""
        return hmac.digest(self._request_key, framed(*parts), "sha256")

    def denial_id(self, cause: str) -> str:
        """The true cause of a denial, for ExplainDenial alone: sealed, at a fixed length, stored nowhere."""
        padded = cause.encode()[:DENIAL_BYTES].ljust(DENIAL_BYTES, b"\0")
        return base64.urlsafe_b64encode(self._sealed(self._denial, padded, ("denial",))).decode().rstrip("=")

    def explain_denial(self, denial_id: str) -> str:
        """The cause that `denial_id` sealed. Raises WrongKey on anything else."""
        try:
            sealed = base64.urlsafe_b64decode(denial_id + "=" * (-len(denial_id) % 4))
        except (binascii.Error, ValueError):
            sealed = b""
        return self._opened(self._denial, sealed, ("denial",)).rstrip(b"\0").decode(errors="replace")

    def _answer_aead(self, request_id: str) -> AESGCM:
        return AESGCM(hmac.digest(self._request_key, framed(b"answer", request_id.encode()), "sha256"))

    def _sealed(self, aead: AESGCM, value: bytes, context: tuple[str, ...]) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return self.key_id + nonce + aead.encrypt(nonce, value, framed(*(part.encode() for part in context)))

    def _opened(self, aead: AESGCM, sealed: bytes, context: tuple[str, ...]) -> bytes:
        key_id, nonce = sealed[:KEY_ID_BYTES], sealed[KEY_ID_BYTES : KEY_ID_BYTES + NONCE_BYTES]
        if key_id != self.key_id:
            raise WrongKey(f"It was sealed under key {key_id.hex()}, the given one is {self.key_id.hex()}.")
        try:
            return aead.decrypt(
                nonce, sealed[KEY_ID_BYTES + NONCE_BYTES :], framed(*(part.encode() for part in context))
            )
        except (InvalidTag, ValueError):
            raise WrongKey("The sealed value is damaged, or belongs elsewhere.") from None
