"""Access tokens: issued (RFC 6749 §4.4, RFC 9068), introspected (RFC 7662), revoked (RFC 7009).

A token is a signature; nothing is written for one. The callers of this module are authenticated already.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from artstore_grpc.audiences import MAX_AUDIENCES, Audiences
from artstore_grpc.authentication import Authenticator
from artstore_grpc.call import Caller
from artstore_grpc.changes import voided
from artstore_grpc.counters import Lookups
from artstore_grpc.errors import InvalidScope, UnauthorizedClient, UnsupportedGrantType, invalid
from artstore_grpc.key_policy import OUTAGE_SECONDS
from artstore_grpc.keys import BadToken, Keyring
from artstore_grpc.model import ACCOUNTS_WRITE, SCOPES, Account, Revocation
from artstore_grpc.records import Event, EventKind
from artstore_grpc.replica import Replica
from artstore_grpc.store.protocol import Store, Unit

GRANT = "client_credentials"
"""RFC 6749 §4.4.2."""
SCOPE_FORM = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
"""RFC 6749 §3.3."""
MAX_TOKEN_LENGTH = 16 * 1024
"""Ours are under 2 KB; a longer one is refused before it is parsed."""
JTI_BYTES = 16
"""Random, so that no two tokens of any replica ever share one (RFC 7519 §4.1.7)."""

MAX_REVOCATIONS = 10_000
"""Live revocations of one account; past it all its tokens become void at once, and the revocations with them, so that
what verifiers must hold stays bounded (ADR 0012, Epochs)."""

MAX_GRANTS = 10_000
"""Grants that are remembered, about 1 KB each."""
MAX_REMEMBERED_REQUEST = 256
"""Characters of scopes and audiences. A longer request is one that its caller made so: its grant is made each time."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What an account gets whenever it asks for the same: all of a token but what makes it one of its own."""

    account: Account
    scope: str
    audiences: tuple[str, ...]
    claims: bytes
    """Their JSON, without what `of_its_own` adds."""


class IssuedToken(NamedTuple):
    """A token as issued. `repr` hides it."""

    text: str
    lifetime_seconds: int
    scope: str
    audiences: tuple[str, ...]
    issue_seconds: int
    """Seconds since 1970."""
    secret_expire_time: datetime | None
    jti: str
    outage: bool
    """Whether it was issued while the database was down."""

    def __repr__(self) -> str:
        return f"IssuedToken(jti={self.jti})"


class Tokens:
    """The rules of tokens."""

    def __init__(
        self,
        *,
        store: Store,
        replica: Replica,
        keyring: Keyring,
        authenticator: Authenticator,
        audiences: Audiences,
        lifetime: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._replica = replica
        self._keyring = keyring
        self._authenticator = authenticator
        self._audiences = audiences
        self._lifetime_seconds = int(lifetime.total_seconds())
        self._now = now
        self.lookups = Lookups()
        """Of grants that were made before."""
        self._grants: dict[tuple[str, str, tuple[str, ...]], Grant] = {}

    def issue(self, caller: Caller, *, scope: str, audience: tuple[str, ...], certificate: str = "") -> IssuedToken:
        """A token for the caller, bound to the certificate of that thumbprint, if there is one (RFC 8705 §3). Raises
        UnauthorizedClient, InvalidScope, InvalidTarget."""
        account = caller.account
        if account.introspection_only:
            raise UnauthorizedClient
        grant = self._grants.get((account.id, scope, audience))
        if grant is None or grant.account is not account:
            self.lookups.misses += 1
            grant = self._granted(account, scope, audience)
        else:
            self.lookups.hits += 1
        issued = int(self._now().timestamp())
        outage = self._replica.outage
        lifetime = min(self._lifetime_seconds, OUTAGE_SECONDS) if outage else self._lifetime_seconds
        jti = secrets.token_hex(JTI_BYTES)
        text = self._keyring.sign(grant.claims + of_its_own(issued, lifetime, jti, certificate))
        expire_time = next((s.expire_time for s in account.secrets if s.id == caller.secret_id), None)
        return IssuedToken(text, lifetime, grant.scope, grant.audiences, issued, expire_time, jti, outage)

    def _granted(self, account: Account, scope: str, audience: tuple[str, ...]) -> Grant:
        """A grant, remembered for as long as the account is the same: a changed one is read anew, as another object."""
        granted = " ".join(granted_scopes(account, scope))
        audiences = self._audiences.granted(account, audience)
        grant = Grant(account, granted, audiences, self._claims(account, granted, audiences))
        if len(scope) + sum(map(len, audience)) <= MAX_REMEMBERED_REQUEST and len(audience) <= MAX_AUDIENCES:
            self._grants.pop((account.id, scope, audience), None)  # a new one goes to the end
            self._grants[account.id, scope, audience] = grant
            if len(self._grants) > MAX_GRANTS:
                del self._grants[next(iter(self._grants))]
        return grant

    def _claims(self, account: Account, scope: str, audiences: tuple[str, ...]) -> bytes:
        """RFC 9068 §2.2, and what ArtStore's services ask of every token."""
        claims = {
            "iss": self._audiences.issuer,
            "sub": account.id,
            "aud": audiences[0] if len(audiences) == 1 else audiences,
            "client_id": account.client_id,
            "scope": scope,
            "role": account.role.value,
            "name": account.name,
            "rate_limit": account.rate_limit,
            "epoch": account.epoch,
        }
        return orjson.dumps(claims)[:-1]

    async def introspect(self, caller: Caller, token: str) -> dict[str, Any] | None:
        """The claims of a live token that the caller may see, else None (RFC 7662 §2.2)."""
        claims = self._verified(token)
        if claims is None or not may_introspect(caller, claims):
            return None
        return claims if await self._authenticator.live(claims) else None

    async def revoke(self, caller: Caller, token: str) -> None:
        """Revokes a token durably. An unknown or dead one is a success (RFC 7009 §2.2); raises UnauthorizedClient for
        another account's (§2.1)."""
        claims = self._verified(token)
        if claims is None:
            return
        if claims["sub"] != caller.account.id and ACCOUNTS_WRITE not in caller.scopes:
            raise UnauthorizedClient("The token was issued to another account.", reason="NOT_YOUR_TOKEN")
        known = await self._replica.account(claims["sub"])
        if known is not None and claims.get("epoch", 0) < known.epoch:
            return  # void already; a row for each such token could raise the epoch again
        revocation = Revocation(claims["jti"], claims["sub"], datetime.fromtimestamp(claims["exp"], UTC))
        async with self._store.unit() as unit:
            if await unit.add_revocation(revocation):
                await self._record(unit, caller, revocation)
        await self._replica.after_write()

    async def _record(self, unit: Unit, caller: Caller, revocation: Revocation) -> None:
        """Records a revocation that was added, or, where it is one too many, that the account's tokens became void."""
        now, actor, owner = self._now(), caller.actor, revocation.account_id
        if await unit.live_revocations(owner, now) > MAX_REVOCATIONS:
            account = await unit.account(owner)
            # Counted again under the account's lock: of several that are too many at once the first makes room.
            if account is not None and await unit.live_revocations(owner, now) > MAX_REVOCATIONS:
                after = replace(voided(account, now), version=account.version + 1, update_time=now)
                await unit.save_account(after)
                await unit.drop_revocations(owner)
                void: dict[str, Any] = {
                    "client_id": after.client_id,
                    "epoch": after.epoch,
                    "before": {"epoch": account.epoch},
                }
                unit.record(Event(now, actor, EventKind.TOKENS_VOIDED, owner, void))
                return
        detail = {"account_id": owner, "expire_time": revocation.expire_time.isoformat()}
        unit.record(Event(now, actor, EventKind.TOKEN_REVOKED, revocation.jti, detail))

    def _verified(self, token: str) -> dict[str, Any] | None:
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            return self._keyring.verify(token)
        except BadToken:
            return None


def check_grant(grant_type: str) -> None:
    """Raises InvalidRequest without a grant_type, UnsupportedGrantType for any but client_credentials."""
    if not grant_type:
        raise invalid("grant_type", "is missing")
    if grant_type != GRANT:
        raise UnsupportedGrantType


def check_token(token: str) -> None:
    """Raises InvalidRequest without a token (RFC 7662 §2.1, RFC 7009 §2.1)."""
    if not token:
        raise invalid("token", "is missing")


def of_its_own(issued: int, lifetime: int, jti: str, certificate: str = "") -> bytes:
    """The end of a token's claims: since when and until when it is valid, which it is, and whose alone (RFC 8705 §3.1).
    Numbers, hexadecimals and base64url, which JSON needs no escapes for."""
    bound = f',"cnf":{{"x5t#S256":"{certificate}"}}' if certificate else ""
    return f',"iat":{issued},"nbf":{issued},"exp":{issued + lifetime},"jti":"{jti}"{bound}}}'.encode()


def granted_scopes(account: Account, asked: str) -> tuple[str, ...]:
    """The scopes of a token, in their fixed order; none asked is all (RFC 6749 §3.3). Raises InvalidScope."""
    granted = account.granted_scopes
    if not asked:
        return granted
    if not SCOPE_FORM.fullmatch(asked):
        raise InvalidScope
    wanted = set(asked.split(" "))
    if not wanted <= set(granted):
        raise InvalidScope
    return tuple(scope for scope in SCOPES if scope in wanted)


def may_introspect(caller: Caller, claims: dict[str, Any]) -> bool:
    """Its own tokens, those for an audience that it serves, and an administrator's every one."""
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    return (
        claims["sub"] == caller.account.id
        or ACCOUNTS_WRITE in caller.scopes
        or not set(caller.account.served_audiences).isdisjoint(audience)
    )
