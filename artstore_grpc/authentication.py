"""Who is calling: client credentials (RFC 6749 §2.3.1, RFC 7617) and access tokens (RFC 6750).

Every wrong credential gets one answer after the same work: an account look-up and one keyed digest. bcrypt runs only
for a known secret id that has not earned its tag, whatever the state of its account. This module decides whether a
caller is who it says; what it may do is for others.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import unquote_to_bytes

from artstore_grpc import secrets
from artstore_grpc.call import Caller
from artstore_grpc.ephemeral.protocol import Limiter
from artstore_grpc.errors import InvalidClient, InvalidRequest, InvalidToken, RateLimited, StoreUnavailable, invalid
from artstore_grpc.keys import BadToken, Keyring
from artstore_grpc.model import Account, Secret, State
from artstore_grpc.replica import Replica
from artstore_grpc.secrets import Hasher
from artstore_grpc.store.protocol import Store
from artstore_grpc.usage import Usage
from artstore_grpc.vault import Vault

FREE_FAILURES = 10
"""Failures a minute by (account, secret id, source) that cost nothing."""
BROKEN_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
MAX_CREDENTIAL_LENGTH = 1024
"""Longer ones can't be ours; they are refused before they are looked at."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client authenticates with. `repr` hides what is secret."""

    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    client_assertion_type: str = ""
    client_assertion: str = field(default="", repr=False)

    @property
    def empty(self) -> bool:
        return not (self.client_id or self.client_secret or self.client_assertion or self.client_assertion_type)


def basic(authorization: str) -> Credentials:
    """The credentials of an `authorization: Basic` value: base64 (RFC 7617), then each part form-urlencoded (RFC 6749
    §2.3.1). Raises InvalidClient for another scheme, InvalidRequest for one that can't be decoded."""
    scheme, _, encoded = authorization.strip().partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClient(cause="authorization is not Basic")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
        client_id, colon, client_secret = decoded.partition(":")
        if not colon:
            raise ValueError
        return Credentials(form_decoded(client_id), form_decoded(client_secret))
    except (binascii.Error, ValueError):
        raise InvalidRequest("The Basic credentials can't be decoded.", reason="MALFORMED_BASIC") from None


def form_decoded(value: str) -> str:
    """RFC 6749 Appendix B: plus is a space, then percent escapes, then UTF-8. Raises ValueError on a broken escape."""
    if BROKEN_ESCAPE.search(value):
        raise ValueError
    decoded = unquote_to_bytes(value.replace("+", " ")).decode()
    if "\0" in decoded:
        raise ValueError
    return decoded


def gathered(fields: Credentials, authorization: str | None) -> Credentials:
    """The one set of credentials of a request, from its fields or its metadata (RFC 6749 §2.3: never both)."""
    if authorization is None:
        given = fields
    else:
        given = basic(authorization)
        if fields.client_secret or fields.client_assertion or fields.client_assertion_type:
            raise InvalidRequest("Two client authentications in one request.", reason="TWO_CLIENT_AUTHENTICATIONS")
        if fields.client_id and fields.client_id != given.client_id:
            raise InvalidRequest("client_id differs from the Basic credentials.", reason="TWO_CLIENT_AUTHENTICATIONS")
    if given.client_secret and given.client_assertion:
        raise InvalidRequest("Two client authentications in one request.", reason="TWO_CLIENT_AUTHENTICATIONS")
    if bool(given.client_assertion) != bool(given.client_assertion_type):
        raise invalid("client_assertion", "and client_assertion_type go together")
    return given


class Authenticator:
    """Proves callers. Holds no state of its own but the hashes under way."""

    def __init__(
        self,
        *,
        store: Store,
        replica: Replica,
        keyring: Keyring,
        vault: Vault,
        hasher: Hasher,
        usage: Usage,
        failures: Limiter,
        issuer: str,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._replica = replica
        self._keyring = keyring
        self._vault = vault
        self._hasher = hasher
        self._usage = usage
        self._failures = failures
        self._issuer = issuer
        self._now = now
        self._under_way: dict[bytes, asyncio.Task[bool]] = {}

    async def client(self, credentials: Credentials, source: str) -> Caller:
        """The account whose live secret this is. Raises InvalidClient with the cause for the log, RateLimited after
        too many failures, Overloaded when hashes queue up, StoreUnavailable."""
        if credentials.empty:
            raise InvalidClient(cause="no credentials", reason="INVALID_CLIENT")
        if max(len(credentials.client_id), len(credentials.client_secret)) > MAX_CREDENTIAL_LENGTH:
            raise InvalidClient(cause="overlong credentials")
        if "\0" in credentials.client_id:  # PostgreSQL's text knows no NUL: the look-up would fail, not find nothing
            raise InvalidClient(cause="unknown client_id")
        now = self._now()
        account = await self._replica.account_by_client_id(credentials.client_id)
        secret_id = secrets.secret_id(credentials.client_secret)
        tag = self._vault.secret_tag(credentials.client_id, secret_id or "", credentials.client_secret)
        secret = find(account, secret_id)
        cause = refusal(account, secret, credentials, now)
        if secret is not None and secret.tag is not None and hmac.compare_digest(secret.tag, tag) and not cause:
            return self._accepted(account, secret, now, source)
        return await self._slowly(credentials, account, secret_id, tag, cause, source)

    async def _slowly(
        self,
        credentials: Credentials,
        account: Account | None,
        secret_id: str | None,
        tag: bytes,
        cause: str,
        source: str,
    ) -> Caller:
        """The way of first successes and of failures: back-off, then bcrypt where a hash may match."""
        key = f"{credentials.client_id}|{secret_id or '-'}|{source}"
        blocked = await self._failures.peek(key, FREE_FAILURES)
        if blocked is not None:
            raise RateLimited(reason="TOO_MANY_FAILURES", retry_after=blocked, cause=cause or "backing off")
        secret = find(account, secret_id)
        if account is not None and secret is not None and secret.tag is None:
            account, secret = await self._matched(credentials, account, secret, tag)
            cause = cause or refusal(account, secret, credentials, self._now())
            if account is not None and secret is not None and not cause:
                return self._accepted(account, secret, self._now(), source)
        await self._failures.charge(key, FREE_FAILURES)
        raise InvalidClient(cause=cause or "wrong secret")

    async def _matched(
        self, credentials: Credentials, account: Account, secret: Secret, tag: bytes
    ) -> tuple[Account | None, Secret | None]:
        """The account and the secret if they match: by the tag another replica stored meanwhile, else by bcrypt."""
        fresh = None if self._replica.outage else await self._replica.reread(credentials.client_id)
        current = find(fresh, secret.id) if fresh else secret
        account = fresh or account
        if current is not None and current.tag is not None:
            return account, current if hmac.compare_digest(current.tag, tag) else None
        if current is None or not await self._bcrypt(credentials.client_secret, current.hash, tag):
            return account, None
        self._replica.learn_tag(credentials.client_id, secret.id, tag)
        await self._keep_tag(secret.id, tag)
        return account, current

    async def _bcrypt(self, text: str, hashed: str, tag: bytes) -> bool:
        """One computation per secret, however many callers present it at once."""
        task = self._under_way.get(tag)
        if task is None:
            task = asyncio.create_task(self._hasher.matches(text, hashed))
            self._under_way[tag] = task
            task.add_done_callback(lambda _: self._under_way.pop(tag, None))
        return await asyncio.shield(task)

    async def _keep_tag(self, secret_id: str, tag: bytes) -> None:
        try:
            await self._store.set_tag(secret_id, tag)
        except StoreUnavailable:
            return  # the tag stays in memory; the next first success after a restart stores it

    def _accepted(self, account: Account | None, secret: Secret, now: datetime, source: str) -> Caller:
        assert account is not None
        self._usage.note(secret.id, now, source)
        return Caller(account, frozenset(account.granted_scopes), secret.id)

    async def bearer(self, authorization: str | None) -> Caller:
        """The live account of an access token made for this service alone. Raises InvalidToken, StoreUnavailable."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidToken(reason="MISSING_TOKEN", cause="no bearer token")
        try:
            claims = self._keyring.verify(token.strip(), self._issuer)
        except BadToken as error:
            raise InvalidToken(cause=str(error)) from None
        if claims["aud"] not in (self._issuer, [self._issuer]):
            raise InvalidToken(reason="WRONG_AUDIENCE", cause="audience is not the issuer alone")
        account = await self.live(claims)
        if account is None:
            raise InvalidToken(cause="revoked, or its account isn't active")
        return Caller(account, frozenset(claims.get("scope", "").split()) & frozenset(account.granted_scopes))

    async def live(self, claims: dict[str, object]) -> Account | None:
        """The account of verified claims; None if the token was revoked, or its account is not active any more."""
        account = await self._replica.account(str(claims["sub"]))
        if account is None or account.state(self._now()) is not State.ACTIVE:
            return None
        if claims.get("epoch") != account.epoch or self._replica.is_revoked(str(claims["jti"])):
            return None
        return account


def find(account: Account | None, secret_id: str | None) -> Secret | None:
    for secret in account.secrets if account else ():
        if secret.id == secret_id:
            return secret
    return None


def refusal(account: Account | None, secret: Secret | None, credentials: Credentials, now: datetime) -> str:
    """Why these credentials fail whatever their secret's text, for the log; empty if they may succeed."""
    if credentials.client_assertion:
        return "no key registered for assertions"
    if account is None:
        return "unknown client_id"
    if secret is None:
        return "unknown secret id"
    if account.state(now) is not State.ACTIVE:
        return f"account is {account.state(now).value}"
    return "" if secret.live(now) else "secret has expired"
