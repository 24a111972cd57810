"""Who is calling: client credentials (RFC 6749 §2.3.1, RFC 7617, RFC 7523) and access tokens (RFC 6750).

Every wrong credential gets one answer after the same work: one look-up in the database, whether or not the account was
in memory, and one keyed digest; assertions.py has its own. bcrypt runs only for a known secret id that has not earned
its tag, whatever the state of its account, and, once there are imported secrets, for every text that can't be a secret
of ours, whatever the account (attempts.py). This module decides whether a caller is who it says; what it may do is for
others.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from artstore_grpc import secrets
from artstore_grpc.assertions import Assertions
from artstore_grpc.attempts import NO_SECRET, Attempt, Attempts, find, first_use, refusal
from artstore_grpc.call import NO_SUBJECTS, Caller
from artstore_grpc.client_certificates import ClientCertificates
from artstore_grpc.counters import Lookups
from artstore_grpc.credentials import CLIENT_ID, Credentials
from artstore_grpc.errors import InvalidClient, InvalidToken
from artstore_grpc.keys import BadToken, Keyring
from artstore_grpc.model import Account, Secret, State
from artstore_grpc.replica import NOBODY, Replica
from artstore_grpc.usage import Usage
from artstore_grpc.vault import Vault

MAX_SECRET_LENGTH = 1024
"""In characters. Ours are shorter; an imported secret's may be longer than the 72 bytes that bcrypt looks at."""


class Authenticator:
    """Proves callers. `tags` counts how often a tag in memory did."""

    def __init__(
        self,
        *,
        replica: Replica,
        keyring: Keyring,
        vault: Vault,
        attempts: Attempts,
        assertions: Assertions,
        certificates: ClientCertificates,
        usage: Usage,
        issuer: str,
        audience: str,
        now: Callable[[], datetime],
    ) -> None:
        self.tags = Lookups()
        self._replica = replica
        self._keyring = keyring
        self._vault = vault
        self._attempts = attempts
        self._assertions = assertions
        self._certificates = certificates
        self._usage = usage
        self._issuer = issuer
        self._audience = audience
        self._now = now

    async def client(self, credentials: Credentials, source: str, subjects: frozenset[str] = NO_SUBJECTS) -> Caller:
        """The account whose live secret this is, or that signed the assertion, or, where nothing but its client_id was
        sent, that names one of `subjects`, those of the connection's certificate. Raises InvalidClient with the cause
        for the log, RateLimited after too many failures, Overloaded when hashes queue up, StoreUnavailable; for an
        assertion also InvalidRequest and Unavailable."""
        if credentials.empty:
            raise InvalidClient(cause="no credentials")
        if credentials.client_assertion:
            signer, key = await self._assertions.prove(credentials, source)
            return Caller(signer, frozenset(signer.granted_scopes), key_thumbprint=key.thumbprint)
        if subjects and not credentials.client_secret:
            shown = await self._certificates.prove(credentials.client_id, subjects, source)
            return Caller(shown, frozenset(shown.granted_scopes), certificate_subject=shown.certificate_subject)
        text = credentials.client_secret
        # No text, or one with a NUL, where other implementations of bcrypt end: nobody's secret, imported or not.
        if not CLIENT_ID.fullmatch(credentials.client_id) or not 0 < len(text) <= MAX_SECRET_LENGTH or "\0" in text:
            raise InvalidClient(cause="not a client_id and secret of ours")
        account = self._replica.remembered(credentials.client_id)
        attempt = self._attempt(credentials, account, source)
        if account is None:
            await self._attempts.hold_up(attempt, None)
            account = await self._replica.look_up(credentials.client_id)
            if attempt.secret_id is None and find(account, None) is not None:
                attempt = self._attempt(credentials, account, source)  # an imported secret's id is in its tag
            secret = self._proved(attempt, account)
        elif (secret := self._proved(attempt, account)) is None:
            await self._attempts.hold_up(attempt, account)
            if not first_use(attempt, account):  # or the time it takes would tell which accounts are in memory
                await self._replica.look_up(NOBODY)
        if account is None or secret is None:
            self.tags.misses += 1
            account, secret = await self._attempts.prove(attempt, account)
        else:
            self.tags.hits += 1
        return self._accepted(account, secret, self._now(), source)

    def _attempt(self, credentials: Credentials, account: Account | None, source: str) -> Attempt:
        text = credentials.client_secret
        secret_id = secrets.secret_id(text)
        secret = None if secret_id else find(account, None)
        digested = secret_id or (secret.id if secret else NO_SECRET)
        return Attempt(credentials, secret_id, self._vault.secret_tag(credentials.client_id, digested, text), source)

    def _proved(self, attempt: Attempt, account: Account | None) -> Secret | None:
        """The account's live secret that a tag in memory proves the attempt to be."""
        secret = find(account, attempt.secret_id)
        if secret is None or not self._attempts.remembers(secret, attempt.tag):
            return None
        return None if refusal(account, secret, self._now()) else secret

    def _accepted(self, account: Account, secret: Secret, now: datetime, source: str) -> Caller:
        self._usage.note(secret.id, now, source)
        return Caller(account, frozenset(account.granted_scopes), secret.id)

    async def bearer(
        self, authorization: str | None, *, certificate: str = "", default_audience_too: bool = False
    ) -> Caller:
        """The live account of an access token made for this service alone, or for the default audience too; of a bound
        one only where `certificate`, the thumbprint of the caller's, is the one it is bound to. Raises InvalidToken,
        StoreUnavailable."""
        scheme, _, token = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidToken(reason="MISSING_TOKEN", cause="no bearer token")
        try:
            claims = self._keyring.verify(token.strip())
        except BadToken as error:
            raise InvalidToken(cause=str(error)) from None
        whose = str(claims["sub"]), str(claims["client_id"])
        if claims["aud"] not in (self._issuer, [self._issuer]) and not (
            default_audience_too and claims["aud"] in (self._audience, [self._audience])
        ):
            raise InvalidToken(reason="WRONG_AUDIENCE", cause="audience is not the issuer alone").of(*whose)
        if "cnf" in claims and claims["cnf"] != {"x5t#S256": certificate}:
            raise InvalidToken(cause="bound to another certificate than the caller's").of(*whose)
        account = await self.live(claims)
        if account is None:
            raise InvalidToken(cause="revoked, or its account isn't active").of(*whose)
        scopes = frozenset(claims.get("scope", "").split()) & frozenset(account.granted_scopes)
        return Caller(account, scopes, claims=claims)

    async def live(self, claims: dict[str, object]) -> Account | None:
        """The account of verified claims; None if the token was revoked, or its account is not active any more."""
        account = await self._replica.account(str(claims["sub"]))
        if account is not None and int(str(claims.get("epoch", 0))) > account.epoch:
            account = await self._replica.reread(account.client_id)  # another replica has raised it a moment ago
        if account is None or account.state(self._now()) is not State.ACTIVE:
            return None
        if claims.get("epoch") != account.epoch or self._replica.trust.is_revoked(str(claims["jti"])):
            return None
        return account
