"""Whose tokens are got, and by what proof: given once, or asked of a provider before each request.

A provider is asked because secrets rotate: a file or a Kubernetes Secret may hold another one than a minute ago.
Nothing here does I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from artstore.identity.assertions import KeyText, PrivateKey, private_key


class CredentialsError(Exception):
    """Credentials that can't be used: the message says where they are, what is wrong, and what to do. It repeats
    nothing that is secret."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account and what it proves itself with: a secret, a private key whose public half is registered with it, or,
    `by_certificate`, the client certificate of the channel that it is used on (RFC 8705 §2.1).

    `issuer` is the service's issuer identifier, empty where it isn't known; an assertion is made for it.
    `secret_expire_time` is aware; None where it isn't known. `repr` shows neither secret nor key.
    """

    client_id: str
    client_secret: str = field(default="", repr=False)
    issuer: str = ""
    secret_expire_time: datetime | None = None
    private_key: PrivateKey | None = field(default=None, repr=False)
    by_certificate: bool = False

    def __post_init__(self) -> None:
        if not self.client_id:
            raise ValueError("client_id is missing.")
        if [bool(self.client_secret), self.private_key is not None, self.by_certificate].count(True) != 1:
            raise ValueError("give client_secret or private_key, and not both, or use a client certificate.")

    def proves_like(self, other: Credentials) -> bool:
        """Whether the service would answer both alike."""
        return (self.client_id, self.client_secret) == (other.client_id, other.client_secret) and (
            self.private_key is other.private_key
        )


class CredentialsProvider(Protocol):
    """Where credentials come from."""

    def current(self) -> Credentials:
        """The credentials of now. Cheap enough to be called before each request for a token; may block for as long as
        a file or a call inside the cluster takes. Raises CredentialsError."""
        ...


@runtime_checkable
class Rereadable(Protocol):
    """A provider that remembers what it read."""

    def reread(self) -> Credentials:
        """As `current`, from the place itself: what is remembered was refused. Raises CredentialsError."""
        ...


class StaticCredentials:
    """Credentials that don't change while the program runs."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def current(self) -> Credentials:
        return self._credentials


def static(
    client_id: str,
    client_secret: str = "",
    private_key_text: KeyText | None = None,
    issuer: str = "",
    *,
    by_certificate: bool = False,
) -> StaticCredentials:
    """A provider of what is given. Raises ValueError for a key that can't be read, and for none or two proofs."""
    key = None if private_key_text is None else private_key(private_key_text)
    return StaticCredentials(
        Credentials(client_id, client_secret, issuer, private_key=key, by_certificate=by_certificate)
    )
