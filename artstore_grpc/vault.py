"""What is sealed at rest and how: AES-256-GCM under keys that are derived from the installation's root key (HKDF, RFC
5869). Knows nothing of where the root key comes from: `root_key.py` reads it, encrypted under the key-encryption key.

A sealed value is `key id (4 bytes) ‖ nonce (12) ‖ ciphertext and tag`. The context (what it is, and whose) is
authenticated with it, so that a value moved to another row does not open. Derived keys never leave this module.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from artstore_grpc.errors import StoreUnavailable

KEY_BYTES = 32
KEY_ID_BYTES = 4
NONCE_BYTES = 12
"""NIST SP 800-38D §5.2.1.1; random nonces stay safe below 2^32 values under one key (§8.3)."""
DENIAL_BYTES = 96
"""Every sealed cause has this length before sealing, so that its length tells nothing."""


class WrongKey(Exception):
    """A value was encrypted under another key, or is damaged; the message names the keys by their ids."""


def new_key() -> str:
    """A fresh key-encryption key, in base64."""
    return base64.b64encode(new_root()).decode()


def new_root() -> bytes:
    """A fresh root key."""
    return os.urandom(KEY_BYTES)


def key_id(key: bytes) -> bytes:
    """What a key is called: 4 bytes that tell it from others, and nothing of it."""
    return hashlib.sha256(b"artstore key id" + key).digest()[:KEY_ID_BYTES]


def framed(*parts: bytes) -> bytes:
    """Parts with their lengths before them, so that no two lists give the same bytes."""
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def derived(root: bytes, purpose: str) -> bytes:
    """A 32-byte key for one purpose (RFC 5869)."""
    info = b"artstore " + purpose.encode()
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(root)


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """What is derived from one root key, and the root key's id."""

    id: bytes
    aead: AESGCM
    tags: HMAC
    request: bytes
    denial: AESGCM


class Vault:
    """Seals, opens and derives. Without a root key it is closed until `unlock`: a start with the database down has none
    yet, and whoever asks meanwhile gets StoreUnavailable. Raises WrongKey on a root key that isn't 32 bytes."""

    def __init__(self, root: bytes | None = None) -> None:
        self._unlocked: Keys | None = None
        if root is not None:
            self.unlock(root)

    def unlock(self, root: bytes) -> None:
        """Gives it the root key, once."""
        if len(root) != KEY_BYTES:
            raise WrongKey(f"The root key must be {KEY_BYTES} bytes.")
        self._unlocked = Keys(
            id=key_id(root),
            aead=AESGCM(derived(root, "seal")),
            tags=HMAC(derived(root, "secret tag"), SHA256()),
            request=derived(root, "request id"),
            denial=AESGCM(derived(root, "denial id")),
        )

    @property
    def locked(self) -> bool:
        return self._unlocked is None

    @property
    def key_id(self) -> bytes:
        """The root key's id. Raises StoreUnavailable while locked, as everything below does."""
        return self._keys.id

    @property
    def _keys(self) -> Keys:
        if self._unlocked is None:
            raise StoreUnavailable("the root key was not read yet")
        return self._unlocked

    def seal(self, value: bytes, *context: str) -> bytes:
        return self._sealed(self._keys.aead, value, context)

    def open(self, sealed: bytes, *context: str) -> bytes:
        """The value. Raises WrongKey when it was sealed under another key or for another context."""
        return self._opened(self._keys.aead, sealed, context)

    def seal_answer(self, value: bytes, request_id: str, *context: str) -> bytes:
        """Seals an answer under a key that needs the request_id too, which is stored nowhere (replays.py)."""
        return self._sealed(self._answer_aead(request_id), value, context)

    def open_answer(self, sealed: bytes, request_id: str, *context: str) -> bytes:
        return self._opened(self._answer_aead(request_id), sealed, context)

    def secret_tag(self, client_id: str, secret_id: str, secret: str) -> bytes:
        """The keyed digest that stands for bcrypt once a secret has succeeded (docs/architecture.md)."""
        keyed = self._keys.tags.copy()  # with the key schedule made: half the price of a new one
        keyed.update(framed(b"1", client_id.encode(), secret_id.encode(), secret.encode()))
        return keyed.finalize()

    def request_digest(self, *parts: bytes) -> bytes:
        """A keyed digest of what identifies a request, so that the request_id itself is never stored."""
        return hmac.digest(self._keys.request, framed(*parts), "sha256")

    def denial_id(self, cause: str) -> str:
        """The true cause of a denial, for ExplainDenial alone: sealed, at a fixed length, stored nowhere."""
        padded = cause.encode()[:DENIAL_BYTES].ljust(DENIAL_BYTES, b"\0")
        return base64.urlsafe_b64encode(self._sealed(self._keys.denial, padded, ("denial",))).decode().rstrip("=")

    def explain_denial(self, denial_id: str) -> str:
        """The cause that `denial_id` sealed. Raises WrongKey on anything else."""
        try:
            sealed = base64.urlsafe_b64decode(denial_id + "=" * (-len(denial_id) % 4))
        except (binascii.Error, ValueError):
            sealed = b""
        return self._opened(self._keys.denial, sealed, ("denial",)).rstrip(b"\0").decode(errors="replace")

    def _answer_aead(self, request_id: str) -> AESGCM:
        return AESGCM(hmac.digest(self._keys.request, framed(b"answer", request_id.encode()), "sha256"))

    def _sealed(self, aead: AESGCM, value: bytes, context: tuple[str, ...]) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return self.key_id + nonce + aead.encrypt(nonce, value, framed(*(part.encode() for part in context)))

    def _opened(self, aead: AESGCM, sealed: bytes, context: tuple[str, ...]) -> bytes:
        under, nonce = sealed[:KEY_ID_BYTES], sealed[KEY_ID_BYTES : KEY_ID_BYTES + NONCE_BYTES]
        if under != self.key_id:
            raise WrongKey(f"It was sealed under root key {under.hex()}, this installation's is {self.key_id.hex()}.")
        try:
            return aead.decrypt(
                nonce, sealed[KEY_ID_BYTES + NONCE_BYTES :], framed(*(part.encode() for part in context))
            )
        except (InvalidTag, ValueError):
            raise WrongKey("The sealed value is damaged, or belongs elsewhere.") from None
