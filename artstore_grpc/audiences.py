"""Which audiences exist for an account: the defaults are resolved when used, so that a new issuer strands nobody."""

from __future__ import annotations

import re
from dataclasses import dataclass

from artstore_grpc.errors import InvalidTarget
from artstore_grpc.model import Account, Role

MAX_AUDIENCES = 20
FORM = re.compile(r"[\x21-\x7e]{1,255}")
"""Visible ASCII; a URI or a plain name."""


@dataclass(frozen=True, slots=True)
class Audiences:
    """The installation's own audiences: the default one, and the issuer for who administers or audits it."""

    default: str
    issuer: str

    def allowed(self, account: Account) -> tuple[str, ...]:
        """What an account may ask for."""
        if account.audiences:
            return account.audiences
        if account.role in (Role.ADMIN, Role.AUDITOR):
            return (self.default, self.issuer)
        return (self.default,)

    def granted(self, account: Account, asked: tuple[str, ...]) -> tuple[str, ...]:
        """The audiences of a token. Raises InvalidTarget for one that the account may not ask for."""
        allowed = self.allowed(account)
        if not asked:
            return (self.default,) if self.default in allowed else allowed[:1]
        if len(asked) > MAX_AUDIENCES or not set(asked) <= set(allowed):
            raise InvalidTarget
        return tuple(dict.fromkeys(asked))
