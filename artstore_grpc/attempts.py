"""The slow way of client authentication: first successes, which bcrypt proves, and failures, which are counted.

An attempt runs to its end whoever waits for it: a caller that gives up early neither gets its failure for nothing nor
loses the tag that its success has earned. Equal attempts from one source at once are one attempt.

A text that can't be a secret of ours may be an imported one (ADR 0014). Once there is any, such a text costs the same
bcrypt at every account, imported, not imported or unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from artstore_grpc.credentials import Credentials
from artstore_grpc.errors import IdentityError, InvalidClient, RateLimited, StoreUnavailable
from artstore_grpc.failures import Failures
from artstore_grpc.model import Account, Secret, State
from artstore_grpc.refusals import about, names_of
from artstore_grpc.replica import Replica
from artstore_grpc.secrets import IMPORTED_DIGEST_BYTES, IMPORTED_PREFIX, Hasher
from artstore_grpc.store.protocol import Store

MAX_IMPORTED_TAGS = 100_000
"""About 200 bytes each."""
NO_SECRET = IMPORTED_PREFIX + 2 * IMPORTED_DIGEST_BYTES * "0"
"""In place of a secret's id where there is none, so that the digest is over as many bytes."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Credentials that no tag in memory has proved. `tag` is the one they would earn; `secret_id` is None for a text of
    free form."""

    credentials: Credentials
    secret_id: str | None
    tag: bytes = field(repr=False)
    source: str

    @property
    def tried(self) -> tuple[str, str, str]:
        """What is tried, and from where, as failures are counted by."""
        return self.credentials.client_id, self.secret_id or "-", self.source


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


class ImportedTags:
    """The tags that imported secrets have earned in this process. They may be weak, so that a tag in the database would
    let whoever has that and the root key search for them at a digest a guess, where bcrypt is what slows them."""

    def __init__(self) -> None:
        self._tags: OrderedDict[str, bytes] = OrderedDict()

    def proves(self, secret: Secret, tag: bytes) -> bool:
        known = self._tags.get(secret.id)
        if known is None or not hmac.compare_digest(known, tag):
            return False
        self._tags.move_to_end(secret.id)
        return True

    def learn(self, secret: Secret, tag: bytes) -> None:
        self._tags[secret.id] = tag
        self._tags.move_to_end(secret.id)
        while len(self._tags) > MAX_IMPORTED_TAGS:
            self._tags.popitem(last=False)


class Attempts:
    """Carries attempts out."""

    def __init__(
        self, *, store: Store, replica: Replica, hasher: Hasher, failures: Failures, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._replica = replica
        self._hasher = hasher
        self._failures = failures
        self._now = now
        self._imported = ImportedTags()
        self._attempts: Flights[tuple[Account, Secret]] = Flights()
        self._hashes: Flights[bool] = Flights()

    def remembers(self, secret: Secret, tag: bytes) -> bool:
        """Whether this is the tag that the secret has earned, in whichever process or, imported, in this one."""
        if secret.imported:
            return self._imported.proves(secret, tag)
        return secret.tag is not None and hmac.compare_digest(secret.tag, tag)

    async def hold_up(self, attempt: Attempt, account: Account | None) -> None:
        """Refuses what comes from a source that has to wait, at once and alike whether or not the account is in memory:
        one that isn't is read meanwhile. A first use of a secret of ours doesn't wait: who fails often behind a shared
        address must not keep its neighbours from new secrets, which nobody guesses. Raises RateLimited, and in an
        outage StoreUnavailable."""
        self._replica.require_database()
        if first_use(attempt, account):
            return
        try:
            await self._failures.look_at_source(attempt.source, account.client_id if account else "not in memory")
        except RateLimited as limited:
            if account is None:
                self._replica.want(attempt.credentials.client_id)
            raise limited.of(*names_of(account)) from None

    async def prove(self, attempt: Attempt, account: Account | None) -> tuple[Account, Secret]:
        """The account, as remembered, and its live secret that this is. Raises InvalidClient with the cause for the
        log, RateLimited, Overloaded when hashes queue up, StoreUnavailable in an outage, alike for every account."""
        try:
            if not (first_use(attempt, account) or (attempt.secret_id is None and self._replica.imported_cost)):
                return await self._proved(attempt, account)  # nothing is hashed for it that others could share
            return await self._attempts.join((attempt.tag, attempt.source), lambda: self._proved(attempt, account))
        except IdentityError as denied:
            raise denied.of(*names_of(account)) from None

    async def _proved(self, attempt: Attempt, account: Account | None) -> tuple[Account, Secret]:
        """Counts the attempt, looks at it, and counts what came of it."""
        await self._failures.admit(*attempt.tried, account.client_id if account else "unknown client_id")
        look = self._of_free_form if attempt.secret_id is None else self._of_ours
        account, secret, cause = await look(attempt, account)
        if cause or account is None or secret is None:
            await self._failures.failed(attempt.source)
            raise InvalidClient(cause=about(cause, account))
        await self._failures.succeeded(*attempt.tried)
        return account, secret

    async def _of_ours(self, attempt: Attempt, account: Account | None) -> tuple[Account | None, Secret | None, str]:
        """The account and the secret that the attempt names, and why it fails, if it does."""
        secret = find(account, attempt.secret_id)
        if secret is not None and secret.tag is None:
            account = await self._replica.reread(attempt.credentials.client_id)
            secret = find(account, attempt.secret_id)
        matches = secret is not None and await self._matches(attempt, secret)
        return account, secret, refusal(account, secret, self._now()) or ("" if matches else "wrong secret")

    async def _of_free_form(
        self, attempt: Attempt, account: Account | None
    ) -> tuple[Account | None, Secret | None, str]:
        """As `_of_ours`, by the same look-ups and, while there is any imported secret, the same bcrypt whatever the
        account: where nothing can match it is done for nothing."""
        secret = find(account, None)
        cause = refusal(account, secret, self._now())
        highest = self._replica.imported_cost
        if cause and not highest:
            return account, secret, cause
        candidate, work = None if cause else secret, max(self._hasher.cost, highest)
        matches = await self._hashes.join(attempt.tag, lambda: self._hashed_imported(attempt, candidate, work))
        if matches and secret is not None:  # it may have been revoked while hashes queued
            account = await self._replica.account_by_client_id(attempt.credentials.client_id)
            secret = next((each for each in account.secrets if each.id == secret.id), None) if account else None
        cause = cause or refusal(account, secret, self._now()) or ("" if matches else "wrong secret")
        return account, secret, cause

    async def _hashed_imported(self, attempt: Attempt, secret: Secret | None, work: int) -> bool:
        text, hashed = attempt.credentials.client_secret, secret.hash if secret else ""
        proof = await self._hasher.proof(text, hashed, work=work, source=attempt.source)
        if secret is None or not proof.matches:
            return False
        self._imported.learn(secret, attempt.tag)
        if proof.upgraded:
            with contextlib.suppress(StoreUnavailable):  # the next process that proves it makes it anew again
                await self._store.upgrade_hash(secret.id, hashed, proof.upgraded)
        return True

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


def first_use(attempt: Attempt, account: Account | None) -> bool:
    """Whether this may be the first use of a secret of ours: its id is right, which nobody guesses, as nobody does the
    rest."""
    secret = find(account, attempt.secret_id)
    return secret is not None and attempt.secret_id is not None and secret.tag is None


def find(account: Account | None, secret_id: str | None) -> Secret | None:
    """The account's secret of this id; without an id the one that was imported. A text with an id is one of ours, and
    no imported secret's, whatever ids these have."""
    for secret in account.secrets if account else ():
        if secret.imported if secret_id is None else secret.id == secret_id and not secret.imported:
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
