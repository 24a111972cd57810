"""Verifies access tokens in the service that receives them, without asking for each: `TokenVerifier`, for asyncio and
for threads.

The rules are one description (`_steps`) that asyncio and threads carry out alike: the token's form and its key's kid,
the key, the signature and the claims (token_claims.py), then what the trust feed says. A token that was seen before
(verified_tokens.py) is held only against what can have changed: its time, its key, the feed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from artstore.identity.caller import VerifiedToken
from artstore.identity.client import Client
from artstore.identity.clocks import steady_seconds
from artstore.identity.confirmation import confirm
from artstore.identity.connection import Connection
from artstore.identity.credentials import CredentialsError
from artstore.identity.errors import IdentityError
from artstore.identity.key_cache import unknown
from artstore.identity.key_sets import Flight, KeySet
from artstore.identity.key_sources import GrpcKeys, IssuerKeys, KeySource, UrlKeys
from artstore.identity.refusals import KeysUnavailable, MalformedToken, TokenRevoked, TrustStale
from artstore.identity.token_claims import MAX_TOKEN, TokenClaims
from artstore.identity.trust import TrustFeed
from artstore.identity.verification_keys import VerificationKey
from artstore.identity.verified_tokens import MAX_TOKENS, Entry, VerifiedTokens

OnStale = Literal["introspect", "refuse", "accept"]
Keys: TypeAlias = KeySet | KeySource | Connection | str
LEEWAY = timedelta(seconds=30)
"""What clocks may differ by (docs/trust.md), for `iat` and `nbf`."""
EXPIRY_LEEWAY = timedelta(seconds=5)
"""How long after its `exp` a token is accepted: it may have expired on its way here."""
MAX_LEEWAY, MAX_EXPIRY_LEEWAY = timedelta(minutes=5), timedelta(seconds=20)
"""The feed tells of a revoked token until 30 s after its `exp`: whoever accepts it for longer has it live again."""
ASKED_SECONDS = 1.0
"""How long the service's word for one token holds, while the feed is silent: what it would take to hear of it there."""
SYNC_INTROSPECTION_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Introspection:
    """A question that only the service can answer: whether a token is live."""

    token: str = field(repr=False)


Step = Flight | Introspection


class TokenVerifier:
    """Verifies the tokens of one issuer for one service; raises TokenRefused.

    async with Client(…) as client, TrustFeed(client) as feed:
        await feed.confirmed()
        verifier = TokenVerifier("https://identity.example", audience="storage", trust=feed)
        caller = await verifier.verify(token)
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str | Iterable[str],
        keys: Keys | None = None,
        trust: TrustFeed | None = None,
        on_stale: OnStale = "introspect",
        introspect: Client | None = None,
        leeway: timedelta = LEEWAY,
        expiry_leeway: timedelta = EXPIRY_LEEWAY,
        most_tokens: int = MAX_TOKENS,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady_seconds,
    ) -> None:
        """`issuer` is what `iss` must be; `audience` this service's name, or several, one of which `aud` must hold.

        `keys` says where the keys are: a KeySet, a source of key_sources.py, an https URL of a key set, a gRPC target,
        or a Client. None: where `trust` is connected, else what the issuer's metadata name (RFC 8414). `trust` is an
        open TrustFeed; without one a revoked token is accepted until it expires. `on_stale` is what to do when the feed
        has been silent for 3 s: have the service asked for each token through `introspect` (None: the feed's client;
        its account's `served_audiences` must hold the audience), refuse all, or accept what was not known to be revoked
        by then. `leeway` (at most 5 min) is for `iat` and `nbf`, `expiry_leeway` (at most 20 s) for `exp`; whole
        seconds both. `most_tokens` are remembered, about 3 KB each. `clock` is in seconds since 1970, `steady` one that
        nobody sets. Raises ValueError.
        """
        audiences = (audience,) if isinstance(audience, str) else tuple(audience)
        if not issuer or not audiences or not all(isinstance(each, str) and each for each in audiences):
            raise ValueError("give the issuer, and at least one audience: this service's own name.")
        if on_stale not in ("introspect", "refuse", "accept"):
            raise ValueError("on_stale must be introspect, refuse or accept.")
        if not timedelta(0) <= leeway <= MAX_LEEWAY or not timedelta(0) <= expiry_leeway <= MAX_EXPIRY_LEEWAY:
            raise ValueError("leeway must be 0 to 5 min, and expiry_leeway 0 to 20 s.")
        if most_tokens < 1:
            raise ValueError("most_tokens must be positive.")
        self.trust = trust
        self.keys = _key_set(keys, issuer, trust)
        self._on_stale = on_stale
        self._client = introspect or (trust.client if trust is not None else None)
        self._steady = steady
        self._tokens = VerifiedTokens(most_tokens)
        self.keys.on_change.append(self._tokens.keep_only)
        self._claims = TokenClaims(
            issuer,
            audiences,
            leeway_seconds=int(leeway.total_seconds()),
            expiry_leeway_seconds=int(expiry_leeway.total_seconds()),
            clock=clock,
            steady=steady,
        )

    async def verify(self, token: str, certificate: str | None = "") -> VerifiedToken:
        """Who calls, from its access token (without `Bearer`). `certificate` is the thumbprint of the one that the
        caller's connection has shown (confirmation.py), which a bound token needs; None: whoever asks will confirm it
        by itself. Raises TokenRefused."""
        verified = await self._verify(token)
        if certificate is not None:
            confirm(verified, certificate)
        return verified

    async def _verify(self, token: str) -> VerifiedToken:
        digest = digest_of(token)
        known = self._known(digest)
        if known is not None:
            return known
        steps = self._steps(token, digest)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                verified: VerifiedToken = done.value
                return verified
            answer = await (step.landed() if isinstance(step, Flight) else self._asked(step.token))

    def verify_sync(self, token: str, certificate: str | None = "") -> VerifiedToken:
        """The same for threads; not on an event loop that others wait for. Raises TokenRefused."""
        verified = self._verify_sync(token)
        if certificate is not None:
            confirm(verified, certificate)
        return verified

    def _verify_sync(self, token: str) -> VerifiedToken:
        digest = digest_of(token)
        known = self._known(digest)
        if known is not None:
            return known
        steps = self._steps(token, digest)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                verified: VerifiedToken = done.value
                return verified
            answer = step.wait() if isinstance(step, Flight) else self._asked_from_thread(step.token)

    def recheck(self, verified: VerifiedToken) -> None:
        """Raises TokenRefused once what was verified is known to be good no more: expired, revoked, its key gone. Asks
        nobody, and takes microseconds; for what takes long, such as a stream."""
        self._check_time(verified)
        trust = self.trust
        if trust is not None:
            self._check_revocation(trust, verified)
            if not trust.stale:
                if verified.kid not in trust.state.keys:
                    raise unknown(verified.kid)
                return
            if self._on_stale == "refuse":
                raise _stale(trust)
        with contextlib.suppress(KeysUnavailable):  # nothing is known against it
            self.keys.look(verified.kid)

    @property
    def remembered(self) -> int:
        """How many tokens are."""
        return len(self._tokens)

    def _known(self, digest: bytes) -> VerifiedToken | None:
        """What a token says that was seen before and is good still; None where that must be found out. Raises
        TokenRefused."""
        entry = self._tokens.get(digest)
        if entry is None:
            return None
        verified, trust = entry.verified, self.trust
        if entry.expires <= self._claims.now() or (trust is not None and trust.state.refuses(verified.claims)):
            self._tokens.drop(digest)
            self.recheck(verified)  # which says why
            return None
        if trust is None:
            key = self.keys.current(verified.kid)
        elif trust.stale:
            if self._on_stale == "refuse":
                raise _stale(trust)
            if self._on_stale == "introspect" and self._steady() >= entry.asked_until:
                return None
            key = self.keys.current(verified.kid, self._not_before(trust, verified.kid))
        else:
            key = self._told(trust, verified.kid)
        return verified if key is entry.key else None

    def _steps(self, token: str, digest: bytes) -> Generator[Step, bool, VerifiedToken]:
        """All that is to be found out about a token, in order."""
        signed = self._claims.taken_apart(token)
        key = self.keys.current(signed.kid) if self.trust is None else None
        if key is None:
            key = yield from self._key(signed.kid)
        verified = self._claims.verified(signed, key)
        asked_until = float("-inf")
        trust = self.trust
        if trust is not None:
            self._check_revocation(trust, verified)
            if trust.stale and self._on_stale == "refuse":
                raise _stale(trust)
            if trust.stale and self._on_stale == "introspect":
                asked_until = self._steady() + ASKED_SECONDS
                if not (yield Introspection(token)):
                    raise TokenRevoked(
                        "The service says that it is not active: revoked; or this service's account may not ask about"
                        " it, since its served_audiences don't hold the token's audience."
                    )
                self._check_revocation(trust, verified)
        expires = verified.expires + self._claims.expiry_leeway_seconds
        self._tokens.put(digest, Entry(verified, key, expires, asked_until))
        return verified

    def _key(self, kid: str) -> Generator[Step, bool, VerificationKey]:
        """The key of a kid, waiting for the key set where it must be fetched."""
        while True:
            found = self._find(kid)
            if isinstance(found, VerificationKey):
                return found
            if not (yield found):
                raise KeysUnavailable("The key set's server does not answer in time: check the network to it.")

    def _find(self, kid: str) -> VerificationKey | Flight:
        trust = self.trust
        if trust is None:
            return self.keys.look(kid)
        if trust.stale:
            return self.keys.look(kid, self._not_before(trust, kid))
        key = self._told(trust, kid)
        if key is None:
            raise unknown(kid)
        return key

    def _told(self, trust: TrustFeed, kid: str) -> VerificationKey | None:
        """The key by the feed, which is current: what it does not name is revoked, whatever a key set says."""
        message = trust.state.keys.get(kid)
        return None if message is None else self.keys.shelf.of_message(message)

    def _not_before(self, trust: TrustFeed, kid: str) -> float:
        """How old the key set may be at most that is gone by while the feed is silent: a key that the feed had revoked
        must not come back by an older set."""
        if kid in trust.state.keys or not trust.state.keys:
            return float("-inf")
        return self.keys.now() - trust.silence_seconds

    def _check_time(self, verified: VerifiedToken) -> None:
        if verified.expires + self._claims.expiry_leeway_seconds <= self._claims.now():
            raise self._claims.expired(verified.expires)

    def _check_revocation(self, trust: TrustFeed, verified: VerifiedToken) -> None:
        if trust.state.refuses(verified.claims):
            raise TokenRevoked("It was revoked, or its account is suspended or deleted: get a new token.")

    async def _asked(self, token: str) -> bool:
        """Whether the service says that a token is active. Raises TrustStale where it doesn't answer."""
        assert self._client is not None
        try:
            return (await self._client.introspect(token)).active
        except (IdentityError, CredentialsError, RuntimeError) as error:
            raise TrustStale(
                f"The trust feed is silent, and the service does not say whether the token is live: {error}"
            ) from error

    def _asked_from_thread(self, token: str) -> bool:
        loop = None if self.trust is None else self.trust.loop
        if loop is None or not loop.is_running():
            raise TrustStale("The trust feed is not open: open it before tokens are verified.")
        if loop is _running_loop():
            raise RuntimeError("verify_sync would wait for its own event loop: use `await verifier.verify(token)`.")
        asking = asyncio.run_coroutine_threadsafe(self._asked(token), loop)
        try:
            return asking.result(SYNC_INTROSPECTION_SECONDS)
        except FutureTimeout:
            asking.cancel()
            raise TrustStale("The trust feed is silent, and the service does not answer in time.") from None


def digest_of(token: str) -> bytes:
    """The SHA-256 of a token. Raises MalformedToken for what can be none."""
    if isinstance(token, str) and len(token) <= MAX_TOKEN and token.isascii():
        return hashlib.sha256(token.encode()).digest()
    raise MalformedToken(f"An access token is a string of at most {MAX_TOKEN} ASCII characters.")


def _key_set(keys: Keys | None, issuer: str, trust: TrustFeed | None) -> KeySet:
    if isinstance(keys, KeySet):
        return keys
    return KeySet(_source(keys, issuer, trust))


def _source(keys: KeySource | Connection | str | None, issuer: str, trust: TrustFeed | None) -> KeySource:
    if keys is None:
        return IssuerKeys(issuer) if trust is None else GrpcKeys.of(trust.client)
    if isinstance(keys, Connection):
        return GrpcKeys.of(keys)
    if isinstance(keys, str):
        return UrlKeys(keys) if keys.startswith(("https://", "http://")) else GrpcKeys(keys)
    return keys


def _stale(trust: TrustFeed) -> TrustStale:
    why = f" ({trust.last_error})" if trust.last_error else ""
    return TrustStale(f"The trust feed is silent{why}, and this service refuses all tokens then.")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
