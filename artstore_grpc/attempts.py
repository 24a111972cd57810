"""The slow way of client authentication: first successes, which bcrypt proves, and failures, which are counted.

An attempt runs to its end whoever waits for it: a caller that gives up early neither gets its failure for nothing nor
loses the tag that its success has earned. Equal attempts from one source at once are one attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from artstore_grpc.credentials import Credentials
from artstore_grpc.ephemeral.protocol import Limiter
from artstore_grpc.errors import InvalidClient, RateLimited, StoreUnavailable
from artstore_grpc.model import Account, Secret, State
from artstore_grpc.replica import Replica
from artstore_grpc.secrets import Hasher
from artstore_grpc.store.protocol import Store

FREE_FAILURES = 10
"""Attempts a minute by (account, secret id, source) that are looked at; a success by its tag is not an attempt."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Credentials that no tag in memory has proved. `tag` is the one they would earn."""

    credentials: Credentials
    secret_id: str | None
    tag: bytes = field(repr=False)
    source: str

    @property
    def failure_key(self) -> str:
        return failure_key(self.credentials.client_id, self.secret_id or "-", self.source)


class Flights(Generic[T]):
    """Work under way by key: whoever asks for the same joins it, and nobody who leaves ends it."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}

    async def join(self, key: Hashable, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(start())
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def _landed(self, key: Hashable, task: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # looked at, in case that everybody has left


class Attempts:
    """Carries attempts out."""

    def __init__(
        self, *, store: Store, replica: Replica, hasher: Hasher, failures: Limiter, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._replica = replica
        self._hasher = hasher
        self._failures = failures
        self._now = now
        self._attempts: Flights[tuple[Account, Secret]] = Flights()
        self._hashes: Flights[bool] = Flights()

    async def prove(self, attempt: Attempt, account: Account | None) -> tuple[Account, Secret]:
        """The account, as remembered, and its live secret that this is. Raises InvalidClient with the cause for the
        log, RateLimited, Overloaded when hashes queue up, StoreUnavailable in an outage, alike for every account."""
        return await self._attempts.join((attempt.tag, attempt.source), lambda: self._proved(attempt, account))

    async def _proved(self, attempt: Attempt, account: Account | None) -> tuple[Account, Secret]:
        self._replica.require_database()
        wait = await self._failures.charge(attempt.failure_key, FREE_FAILURES)
        if wait is not None:
            raise RateLimited(reason="TOO_MANY_FAILURES", retry_after=wait, cause=about("backing off", account))
        secret = find(account, attempt.secret_id)
        if secret is not None and secret.tag is None:
            account = await self._replica.reread(attempt.credentials.client_id)
            secret = find(account, attempt.secret_id)
        matches = secret is not None and await self._matches(attempt, secret)
        cause = refusal(account, secret, self._now()) or ("" if matches else "wrong secret")
        if cause or account is None or secret is None:
            raise InvalidClient(cause=about(cause, account))
        return account, secret

    async def _matches(self, attempt: Attempt, secret: Secret) -> bool:
        """By the tag, which another replica may have stored meanwhile; else by bcrypt, once for all who ask."""
        if secret.tag is not None:
            return hmac.compare_digest(secret.tag, attempt.tag)
        return await self._hashes.join(attempt.tag, lambda: self._hashed(attempt, secret))

    async def _hashed(self, attempt: Attempt, secret: Secret) -> bool:
        if not await self._hasher.matches(attempt.credentials.client_secret, secret.hash):
            return False
        self._replica.learn_tag(attempt.credentials.client_id, secret.id, attempt.tag)
        try:
            await self._store.set_tag(secret.id, attempt.tag)
        except StoreUnavailable:
            return True  # the tag stays in memory; the next first success after a restart stores it
        return True


def failure_key(client_id: str, what: str, source: str) -> str:
    """What failures are counted by, `what` being a secret's id: a digest, since a stranger chooses what goes in."""
    return hashlib.blake2b(f"{client_id}|{what}|{source}".encode(), digest_size=16).hexdigest()


def about(cause: str, account: Account | None) -> str:
    """A cause for the log and for ExplainDenial: with the account where there is one, never with what was sent."""
    return f"{cause}: {account.client_id}" if account else cause


def find(account: Account | None, secret_id: str | None) -> Secret | None:
    for secret in account.secrets if account else ():
        if secret.id == secret_id:
            return secret
    return None


def refusal(account: Account | None, secret: Secret | None, now: datetime) -> str:
    """Why these credentials fail whatever their secret's text, for the log; empty if they may succeed."""
    if account is None:
        return "unknown client_id"
    if secret is None:
        return "unknown secret id"
    if account.state(now) is not State.ACTIVE:
        return f"account is {account.state(now).value}"
    return "" if secret.live(now) else "secret has expired"
