"""How the root key is encrypted for storage: the protocol of key-encryption keys, and one that is 32 bytes of our own.

Keys are called `local:` and 8 hex digits, or `kms:` and what the key service calls its key; such an id says nothing of
the key, and stands in the database, in logs and in errors. Where a local key lies is not known here.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from artstore_grpc.vault import KEY_BYTES, NONCE_BYTES, WrongKey, derived, key_id

LOCAL = "local:"
WRAPPING = "key encryption"
"""The purpose that the AES key is derived for: what release 0.1.0 sealed under the same key does not open here."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """An encrypted key, and the id of the key that it is encrypted under."""

    key_id: str
    ciphertext: bytes = field(repr=False)


class KeyEncryption(Protocol):
    """A key-encryption key, wherever it is. Every method raises KeyServiceUnavailable where that can't be reached."""

    async def current_key(self) -> str:
        """The id of the key that `wrap` encrypts under. Raises WrongKey when there is none."""

    async def wrap(self, plain: bytes, context: bytes) -> Wrapped:
        """Encrypts a key of 32 bytes. The context is authenticated: it must be given again."""

    async def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        """The key. Raises WrongKey, naming both keys, when it was wrapped under another, for another context, or is
        damaged."""

    def sealing_key(self) -> bytes | None:
        """The key itself, where this process has it: release 0.1.0 sealed everything under it."""

    async def close(self) -> None:
        """Closes what it holds open."""


def another_key(wrapped_under: str, given: str) -> WrongKey:
    """The error that names both."""
    return WrongKey(f"The root key is encrypted under {wrapped_under}, the given key is {given}.")


def damaged(under: str) -> WrongKey:
    """The error of the right key."""
    return WrongKey(f"The root key, encrypted under {under}, is damaged or belongs elsewhere.")


def sealed(key: bytes, plain: bytes, context: bytes) -> bytes:
    """AES-256-GCM as `nonce (12) ‖ ciphertext and tag`; random nonces (NIST SP 800-38D §8.2.2)."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, context)


def opened(key: bytes, value: bytes, context: bytes) -> bytes:
    """What was sealed so. Raises InvalidTag."""
    if len(value) < NONCE_BYTES:
        raise InvalidTag
    return AESGCM(key).decrypt(value[:NONCE_BYTES], value[NONCE_BYTES:], context)


class LocalKey:
    """A key-encryption key that this process knows: 32 bytes in base64. Raises WrongKey for anything else."""

    def __init__(self, encoded: str) -> None:
        try:
            key = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise WrongKey("The key-encryption key must be 32 bytes in base64.")
        self.id = LOCAL + key_id(key).hex()
        self._key = key

    async def current_key(self) -> str:
        return self.id

    async def wrap(self, plain: bytes, context: bytes) -> Wrapped:
        return Wrapped(self.id, sealed(derived(self._key, WRAPPING), plain, context))

    async def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        if wrapped.key_id != self.id:
            raise another_key(wrapped.key_id, self.id)
        try:
            return opened(derived(self._key, WRAPPING), wrapped.ciphertext, context)
        except InvalidTag:
            raise damaged(self.id) from None

    def sealing_key(self) -> bytes | None:
        return self._key

    async def close(self) -> None:
        return None
