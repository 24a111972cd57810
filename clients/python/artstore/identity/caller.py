"""Who calls: what a verified token says of it, and where the code that answers finds it, since the interceptors and the
middleware set it around each handler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True, repr=False)
class VerifiedToken:
    """A token that was verified: who calls, and what it may do. Holds nothing that it could be replayed by."""

    claims: Mapping[str, Any]
    """All that it says; not to be changed."""
    scopes: frozenset[str]
    audience: tuple[str, ...]
    expires: float
    """`exp`, in seconds since 1970."""
    kid: str
    """The key that signed it."""

    def __repr__(self) -> str:
        return f"VerifiedToken(client_id={self.client_id!r}, role={self.role!r}, jti={self.jti!r})"

    def __hash__(self) -> int:
        return hash(self.jti)

    @property
    def subject(self) -> str:
        """The account's id, `sub`."""
        return str(self.claims["sub"])

    @property
    def client_id(self) -> str:
        return str(self.claims["client_id"])

    @property
    def name(self) -> str:
        """The account's name when the token was issued."""
        return str(self.claims.get("name", ""))

    @property
    def role(self) -> str:
        """`admin`, `user`, `auditor`, `readonly`; a preset of scopes, which decide."""
        return str(self.claims.get("role", ""))

    @property
    def jti(self) -> str:
        return str(self.claims["jti"])

    @property
    def epoch(self) -> int:
        return int(self.claims["epoch"])

    @property
    def expire_time(self) -> datetime:
        return datetime.fromtimestamp(self.expires, UTC)

    @property
    def issue_time(self) -> datetime:
        return datetime.fromtimestamp(self.claims["iat"], UTC)

    def has_scope(self, *names: str) -> bool:
        """Whether it has all of these."""
        return self.scopes.issuperset(names)


CALLER: ContextVar[VerifiedToken] = ContextVar("artstore.identity.caller")


def current_caller() -> VerifiedToken:
    """The caller of what is being handled. Raises LookupError where there is none: outside of a call, and in a method
    that the table has as PUBLIC."""
    try:
        return CALLER.get()
    except LookupError:
        raise LookupError("There is no caller here: this is no call, or its method is PUBLIC.") from None


@contextmanager
def calling(caller: VerifiedToken) -> Iterator[None]:
    """Makes it the current caller within."""
    token = CALLER.set(caller)
    try:
        yield
    finally:
        CALLER.reset(token)
