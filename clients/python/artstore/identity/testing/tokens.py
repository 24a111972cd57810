"""Access tokens: issued (RFC 6749 §4.4, RFC 9068), introspected (RFC 7662), revoked (RFC 7009).

The callers of this module are authenticated already, and hold the authority's lock.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from artstore.identity.testing.account_fields import MAX_AUDIENCES, SCOPES
from artstore.identity.testing.accounts import Account, Accounts, Caller
from artstore.identity.testing.keys import TOKEN_TYPE, BadToken, Keyring, foreign_pair, present, signed
from artstore.identity.testing.refusals import invalid, refused
from artstore.identity.testing.trust import Trust
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

GRANT = "client_credentials"
"""RFC 6749 §4.4.2."""
SCOPE_FORM = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
"""RFC 6749 §3.3."""
MAX_TOKEN_LENGTH = 16 * 1024
ANY_ACCOUNT = "identity.accounts.write"
"""The scope of whoever looks at any token, and ends any."""
INTROSPECTED = ("scope", "client_id", "exp", "iat", "nbf", "sub", "iss", "jti", "name", "rate_limit")
"""Claims that RFC 7662 §2.2 answers under the names they have in the token."""


class Minted(NamedTuple):
    """A token, and what it says."""

    text: str
    claims: dict[str, Any]


class Tokens:
    """The rules of tokens."""

    def __init__(
        self,
        accounts: Accounts,
        keyring: Keyring,
        trust: Trust,
        now: Callable[[], datetime],
        *,
        issuer: str,
        audience: str,
        lifetime: timedelta,
    ) -> None:
        self._accounts = accounts
        self._keyring = keyring
        self._trust = trust
        self._now = now
        self._issuer = issuer
        self._audience = audience
        self._lifetime = lifetime

    def issue(self, caller: Caller, request: pb.IssueTokenRequest) -> pb.IssueTokenResponse:
        """IssueToken."""
        account = caller.account
        if account.introspection_only:
            raise refused("UNAUTHORIZED_CLIENT")
        scope = " ".join(granted_scopes(account, request.scope))
        claims = self.claims(account, scope, self._granted_audiences(account, tuple(request.audience)), self._lifetime)
        answer = pb.IssueTokenResponse(
            access_token=self.signed(claims),
            token_type="Bearer",
            expires_in=claims["exp"] - claims["iat"],
            scope=scope,
            issue_time=Timestamp(seconds=claims["iat"]),
        )
        if caller.secret is not None:
            answer.secret_expire_time.FromDatetime(caller.secret.expire_time)
        return answer

    def claims(self, account: Account, scope: str, audiences: tuple[str, ...], lifetime: timedelta) -> dict[str, Any]:
        """RFC 9068 §2.2, and what ArtStore's services ask of every token. With a `lifetime` of 0 or less the token
        has lived its usual time and expired so long ago."""
        expires = int((self._now() + lifetime).timestamp())
        issued = (
            int(self._now().timestamp()) if lifetime > timedelta(0) else expires - int(self._lifetime.total_seconds())
        )
        return {
            "iss": self._issuer,
            "sub": account.id,
            "aud": audiences[0] if len(audiences) == 1 else list(audiences),
            "client_id": account.client_id,
            "scope": scope,
            "role": account.role,
            "name": account.name,
            "rate_limit": account.rate_limit,
            "epoch": account.epoch,
            "iat": issued,
            "nbf": issued,
            "exp": expires,
            "jti": secrets.token_hex(16),
        }

    def signed(self, claims: dict[str, Any], header: Mapping[str, Any] | None = None, *, foreign: bool = False) -> str:
        """A token of these claims, by the key that signs or by a foreign one; a header of None is left out."""
        pair = self._keyring.active.pair
        if foreign:
            pair = foreign_pair(str(pair.alg))
        return signed(pair, claims, {"typ": TOKEN_TYPE} | dict(header or {}))

    def mint(
        self,
        account: Account,
        *,
        scope: str | None,
        audience: Iterable[str],
        lifetime: timedelta | None,
        foreign: bool,
        claims: Mapping[str, Any],
        header: Mapping[str, Any],
    ) -> str:
        """A token for a test: nothing is asked, and nothing refused."""
        wanted = " ".join(account.granted_scopes) if scope is None else scope
        audiences = tuple(audience) or self._granted_audiences(account, ())
        made = self.claims(account, wanted, audiences, self._lifetime if lifetime is None else lifetime) | dict(claims)
        return self.signed(present(made), header, foreign=foreign)

    def introspect(self, caller: Caller, token: str) -> pb.IntrospectTokenResponse:
        """IntrospectToken: its own tokens, those for an audience that it serves, and an administrator's every one."""
        claims = self._verified(token)
        if claims is None or not may_introspect(caller, claims) or self.account_of(claims) is None:
            return pb.IntrospectTokenResponse(active=False)
        return pb.IntrospectTokenResponse(
            active=True,
            token_type="Bearer",
            aud=audiences_of(claims),
            role=accounts_pb.Role.Value(f"ROLE_{claims['role'].upper()}"),
            **{name: claims[name] for name in INTROSPECTED},
        )

    def revoke(self, caller: Caller, token: str) -> None:
        """RevokeToken. An unknown or dead token is a success (RFC 7009 §2.2)."""
        claims = self._verified(token)
        if claims is None:
            return
        if claims["sub"] != caller.account.id and ANY_ACCOUNT not in caller.scopes:
            message = "The token was issued to another account."
            raise refused("UNAUTHORIZED_CLIENT", message, reason="NOT_YOUR_TOKEN")
        self.end(claims)

    def end(self, claims: Mapping[str, Any]) -> None:
        """Revokes the token that says this, unless it is void already."""
        account = self._accounts.find(claims["sub"])
        if account is None or claims.get("epoch", 0) >= account.epoch:
            self._trust.revoke(claims["jti"], claims["exp"])

    def account_of(self, claims: Mapping[str, Any]) -> Account | None:
        """The account of verified claims; None if the token was revoked, or its account is not active any more."""
        account = self._accounts.find(str(claims["sub"]))
        if account is None or account.state(self._now()) != accounts_pb.STATE_ACTIVE:
            return None
        if claims.get("epoch") != account.epoch or self._trust.is_revoked(str(claims["jti"])):
            return None
        return account

    def _verified(self, token: str) -> dict[str, Any] | None:
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            return self._keyring.verify(token)
        except BadToken:
            return None

    def _granted_audiences(self, account: Account, asked: tuple[str, ...]) -> tuple[str, ...]:
        allowed = self._accounts.allowed_audiences(account)
        if not asked:
            return (self._audience,) if self._audience in allowed else allowed[:1]
        if len(asked) > MAX_AUDIENCES or not set(asked) <= set(allowed):
            raise refused("INVALID_TARGET")
        return tuple(dict.fromkeys(asked))


def check_issue(request: pb.IssueTokenRequest) -> None:
    """What is wrong with a request whoever sends it, before anybody is authenticated."""
    if not request.grant_type:
        raise invalid("grant_type", "is missing")
    if request.grant_type != GRANT:
        raise refused("UNSUPPORTED_GRANT_TYPE")


def check_token(request: pb.IntrospectTokenRequest | pb.RevokeTokenRequest) -> None:
    if not request.token:
        raise invalid("token", "is missing")


def granted_scopes(account: Account, asked: str) -> tuple[str, ...]:
    """The scopes of a token, in their fixed order; none asked is all (RFC 6749 §3.3)."""
    granted = account.granted_scopes
    if not asked:
        return granted
    wanted = set(asked.split(" "))
    if not SCOPE_FORM.fullmatch(asked) or not wanted <= set(granted):
        raise refused("INVALID_SCOPE")
    return tuple(scope for scope in SCOPES if scope in wanted)


def audiences_of(claims: Mapping[str, Any]) -> list[str]:
    audience = claims["aud"]
    return audience if isinstance(audience, list) else [audience]


def may_introspect(caller: Caller, claims: Mapping[str, Any]) -> bool:
    return (
        claims["sub"] == caller.account.id
        or ANY_ACCOUNT in caller.scopes
        or not set(caller.account.served_audiences).isdisjoint(audiences_of(claims))
    )
