"""Who is calling: client credentials (RFC 6749 §2.3.1, RFC 7617, RFC 7523) and access tokens (RFC 6750); and whether it
calls too often."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote_to_bytes

from artstore.identity.testing.accounts import Account, Accounts, Caller
from artstore.identity.testing.assertions import Assertions
from artstore.identity.testing.keys import BadToken, Keyring
from artstore.identity.testing.refusals import invalid, refused
from artstore.identity.testing.secrets import Secret
from artstore.identity.testing.tokens import Tokens
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb

BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
WINDOW = timedelta(seconds=60)
FIELDS = ("client_id", "client_secret", "client_assertion_type", "client_assertion")


@dataclass(frozen=True)
class Credentials:
    """What a client authenticates with; fields that a request doesn't have are empty."""

    client_id: str = ""
    client_secret: str = ""
    client_assertion_type: str = ""
    client_assertion: str = ""


def fields_of(message: Any) -> Credentials:
    known = message.DESCRIPTOR.fields_by_name
    return Credentials(**{name: getattr(message, name) for name in FIELDS if name in known})


def is_basic(authorization: str | None) -> bool:
    return authorization is not None and authorization.strip()[:6].lower() == "basic "


def basic(authorization: str) -> Credentials:
    """The credentials of an `authorization: Basic` value: base64, then each part form-urlencoded."""
    if not is_basic(authorization):
        raise refused("INVALID_CLIENT", cause="authorization is not Basic")
    try:
        text = base64.b64decode(authorization.strip()[6:].strip(), validate=True).decode()
        client_id, colon, client_secret = text.partition(":")
        if not colon or BROKEN_ESCAPE.search(text):
            raise ValueError
        return Credentials(*(unquote_to_bytes(part.replace("+", " ")).decode() for part in (client_id, client_secret)))
    except (binascii.Error, ValueError):
        message = "The Basic credentials can't be decoded."
        raise refused("INVALID_REQUEST", message, reason="MALFORMED_BASIC") from None


def gathered(fields: Credentials, authorization: str | None) -> Credentials:
    """The one set of credentials of a request, from its fields or its metadata (RFC 6749 §2.3: never both)."""
    given = fields if authorization is None else basic(authorization)
    two = bool(given.client_secret and given.client_assertion)
    if authorization is not None:
        two = bool(fields.client_secret or fields.client_assertion or fields.client_assertion_type)
        two = two or fields.client_id not in ("", given.client_id)
    if two:
        message = "Two client authentications in one request."
        raise refused("INVALID_REQUEST", message, reason="TWO_CLIENT_AUTHENTICATIONS")
    if bool(given.client_assertion) != bool(given.client_assertion_type):
        raise invalid("client_assertion", "and client_assertion_type go together")
    return given


class Callers:
    """Proves callers, and counts their calls."""

    def __init__(
        self,
        accounts: Accounts,
        keyring: Keyring,
        tokens: Tokens,
        now: Callable[[], datetime],
        *,
        issuer: str,
        audience: str,
    ) -> None:
        self._accounts = accounts
        self._keyring = keyring
        self._tokens = tokens
        self._now = now
        self._issuer = issuer
        self._audience = audience
        self._assertions = Assertions(accounts, issuer, now)
        self._charged: dict[str, deque[datetime]] = {}

    def client(self, given: Credentials, source: str) -> Caller:
        """The account whose live secret this is, or that signed the assertion."""
        if given == Credentials():
            raise refused("INVALID_CLIENT", cause="no credentials")
        if given.client_assertion:
            signer = self._assertions.prove(given.client_assertion_type, given.client_assertion, given.client_id)
            self._require_active(signer)
            return Caller(signer, frozenset(signer.granted_scopes), by_key=True)
        account = next((each for each in self._accounts if each.client_id == given.client_id), None)
        if account is None:
            raise refused("INVALID_CLIENT", cause="unknown client_id")
        secret = self._secret(account, given.client_secret)
        self._require_active(account)
        secret.last_used_time, secret.last_used_source = self._now(), source
        return Caller(account, frozenset(account.granted_scopes), secret)

    def _secret(self, account: Account, text: str) -> Secret:
        for secret in account.live_secrets(self._now()):
            if hmac.compare_digest(secret.text.encode(), text.encode()):
                return secret
        raise refused("INVALID_CLIENT", cause=f"wrong or expired secret: {account.client_id}")

    def _require_active(self, account: Account) -> None:
        state = account.state(self._now())
        if state != accounts_pb.STATE_ACTIVE:
            name = accounts_pb.State.Name(state).removeprefix("STATE_").lower()
            raise refused("INVALID_CLIENT", cause=f"account is {name}: {account.client_id}")

    def bearer(self, authorization: str | None, *, default_audience_too: bool = False) -> Caller:
        """The live account of an access token made for this authority alone, or for the default audience too."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer":
            raise refused("INVALID_TOKEN", reason="MISSING_TOKEN", cause="no bearer token")
        try:
            claims = self._keyring.verify(token.strip())
        except BadToken as error:
            raise refused("INVALID_TOKEN", cause=str(error)) from None
        ours = [self._issuer, [self._issuer]]
        if default_audience_too:
            ours += [self._audience, [self._audience]]
        if claims["aud"] not in ours:
            raise refused("INVALID_TOKEN", reason="WRONG_AUDIENCE", cause="audience is not the issuer alone")
        account = self._tokens.account_of(claims)
        if account is None:
            raise refused("INVALID_TOKEN", cause="revoked, or its account isn't active")
        scopes = frozenset(claims.get("scope", "").split()) & frozenset(account.granted_scopes)
        return Caller(account, scopes, claims=claims)

    def still_good(self, caller: Caller, authorization: str | None) -> bool:
        """Whether the token that a stream was opened with would open it now."""
        try:
            claims = self._keyring.verify((authorization or "").strip().partition(" ")[2].strip())
        except BadToken:
            return False
        account = self._tokens.account_of(claims)
        return account is not None and account is caller.account

    def charge(self, account: Account) -> None:
        """Counts a call; refuses one that is over the account's limit, which counts for nothing."""
        now = self._now()
        charged = self._charged.setdefault(account.id, deque())
        while charged and charged[0] <= now - WINDOW:
            charged.popleft()
        if len(charged) >= account.rate_limit:
            wait = charged[-account.rate_limit] + WINDOW - now
            raise refused("RATE_LIMITED", "The account is over its rate limit.", retry_after=wait)
        charged.append(now)
