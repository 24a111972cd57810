"""Credentials as JSON: what a credentials file holds, and a key of a Kubernetes Secret.

    {"version": 1, "issuer": …, "client_id": …, "client_secret": …, "secret_expire_time": RFC 3339}

`secret_create_time` may be there too, and `rotation` while a secret is replaced (self_rotation.py). Members that are
not known are kept as they are. This module knows the form, not the place; the server's sinks write the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from artstore.identity.credentials import Credentials, CredentialsError

VERSION = 1
MAX_BYTES = 64 * 1024
"""Ours are under 1 KB."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A rotation under way: who does it, under which request_id (AIP-155), and the new secret once there is one."""

    request_id: str = field(repr=False)
    started: datetime
    owner: str
    overlap_seconds: int
    client_secret: str = field(default="", repr=False)
    secret_create_time: datetime | None = None
    secret_expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """The credentials of one account, and the rotation that is under way."""

    client_id: str
    client_secret: str = field(repr=False)
    issuer: str = ""
    secret_create_time: datetime | None = None
    secret_expire_time: datetime | None = None
    rotation: Claim | None = None
    others: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Members that this version doesn't know."""

    @property
    def credentials(self) -> Credentials:
        """What to authenticate with: never a secret that wasn't proved."""
        return Credentials(self.client_id, self.client_secret, self.issuer, self.secret_expire_time)

    def promoted(self) -> Document:
        """The document with the new secret in the old one's place."""
        assert self.rotation is not None
        return replace(
            self,
            client_secret=self.rotation.client_secret,
            secret_create_time=self.rotation.secret_create_time,
            secret_expire_time=self.rotation.secret_expire_time,
            rotation=None,
        )


@runtime_checkable
class CredentialsStore(Protocol):
    """A place that replicas of a service share. Raises CredentialsError."""

    def read(self) -> tuple[Document, str]:
        """What is there, and its version."""
        ...

    def replace(self, document: Document, version: str) -> bool:
        """Puts a document in the place of that version; False, and nothing is changed, where another one is there
        meanwhile (compare and swap). When it returns True the document is on disk."""
        ...


def parsed(text: bytes, where: str, *, issuer: str = "") -> Document:
    """Reads a document. `where` is named in errors; a non-empty `issuer` must be the document's. Raises
    CredentialsError."""
    if len(text) > MAX_BYTES:
        raise CredentialsError(f"{where} is no credentials document: it is larger than {MAX_BYTES} bytes.")
    try:
        members = json.loads(text)
    except ValueError:
        raise CredentialsError(
            f"{where} is no JSON: it is truncated or damaged. Restore it, or rotate the account's secret and write the "
            "new one there."
        ) from None
    if not isinstance(members, dict):
        raise CredentialsError(f"{where} must hold a JSON object, with client_id and client_secret.")
    return _document(_Members(members, where), issuer)


def serialised(document: Document) -> bytes:
    """The document as JSON."""
    members: dict[str, Any] = {
        "version": VERSION,
        **document.others,
        "issuer": document.issuer,
        "client_id": document.client_id,
        "client_secret": document.client_secret,
        "secret_create_time": _written(document.secret_create_time),
        "secret_expire_time": _written(document.secret_expire_time),
    }
    claim = document.rotation
    if claim is not None:
        members["rotation"] = _set(
            {
                "request_id": claim.request_id,
                "started": _written(claim.started),
                "owner": claim.owner,
                "overlap_seconds": claim.overlap_seconds,
                "client_secret": claim.client_secret or None,
                "secret_create_time": _written(claim.secret_create_time),
                "secret_expire_time": _written(claim.secret_expire_time),
            }
        )
    return json.dumps(_set(members), indent=2).encode() + b"\n"


class _Members:
    """The members of an object, taken out one by one."""

    def __init__(self, members: dict[str, Any], where: str, prefix: str = "") -> None:
        self.left = dict(members)
        self.where = where
        self._prefix = prefix

    def text(self, name: str, *, required: bool = False) -> str:
        value = self.left.pop(name, None)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or (required and not value):
            raise self.wrong(name, "must be a string" if value is not None else "is missing")
        return value

    def number(self, name: str) -> int:
        value = self.left.pop(name, None)
        if type(value) is not int or value < 0:
            raise self.wrong(name, "must be a whole number")
        return value

    def time(self, name: str) -> datetime | None:
        text = self.text(name)
        if not text:
            return None
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise self.wrong(name, "must be a time as RFC 3339 has it") from None
        if time.tzinfo is None:
            raise self.wrong(name, "must say its offset from UTC, such as a Z at its end")
        return time.astimezone(UTC)

    def wrong(self, name: str, what: str) -> CredentialsError:
        return CredentialsError(f"{self.where}: {self._prefix}{name} {what}; correct it there.")


def _document(members: _Members, issuer: str) -> Document:
    version = members.left.pop("version", None)
    if type(version) is not int or version != VERSION:
        raise members.wrong("version", f"must be {VERSION}: this is no credentials document, or one of a newer program")
    document = Document(
        client_id=members.text("client_id", required=True),
        client_secret=members.text("client_secret", required=True),
        issuer=members.text("issuer"),
        secret_create_time=members.time("secret_create_time"),
        secret_expire_time=members.time("secret_expire_time"),
        rotation=_claim(members.left.pop("rotation", None), members),
    )
    if issuer and document.issuer != issuer:
        raise CredentialsError(
            f"{members.where} holds credentials for the issuer {document.issuer or '(none)'!r}, and {issuer!r} is "
            "expected: give the file that belongs to it, or correct the issuer that is expected."
        )
    return replace(document, others=members.left)


def _claim(value: object, members: _Members) -> Claim | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise members.wrong("rotation", "must be an object, or not be there")
    inner = _Members(value, members.where, "rotation.")
    started = inner.time("started")
    if started is None:
        raise inner.wrong("started", "is missing")
    return Claim(
        request_id=inner.text("request_id", required=True),
        started=started,
        owner=inner.text("owner", required=True),
        overlap_seconds=inner.number("overlap_seconds"),
        client_secret=inner.text("client_secret"),
        secret_create_time=inner.time("secret_create_time"),
        secret_expire_time=inner.time("secret_expire_time"),
    )


def _written(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _set(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
