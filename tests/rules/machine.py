"""Random lives of accounts and secrets: each step goes through the use cases and through the model, which must agree.

Two processes share the store: `house` makes the changes and is restarted at times, `other` only tails the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule

from artstore_grpc import ledger, secrets
from artstore_grpc.accounts import Draft
from artstore_grpc.call import Caller
from artstore_grpc.changes import Target, etag
from artstore_grpc.credentials import Credentials
from artstore_grpc.errors import IdentityError, InvalidClient
from artstore_grpc.jobs import Purge
from artstore_grpc.model import Account as Stored
from artstore_grpc.model import AccountQuery, Role
from artstore_grpc.replays import Answer, Retry
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import Vault, new_root
from tests.rules import house, model

T = TypeVar("T")

NAMES = st.sampled_from(["ingester", "query", "storage 1", "storage 2"])
REQUEST_IDS = st.none() | st.sampled_from([str(UUID(int=i + (4 << 76) + (8 << 60))) for i in range(3)])
OVERLAPS = st.sampled_from([None, *(timedelta(seconds=s) for s in (0, 1, 3600, 86_400, 30 * 86_400))])
STEPS = st.sampled_from(
    [timedelta(seconds=s) for s in (1, 599, 660, 86_399)] + [timedelta(days=d) for d in (7, 29, 61)]
)
WHICH = st.integers(0, 3)
ETAGS = st.sampled_from(["", "", "right", "stale"])
ADMINISTRATOR = Stored(
    "administrator", "sa_dev_administrator", "administrator", Role.ADMIN, *[datetime(2030, 1, 1, tzinfo=UTC)] * 2
)
BYSTANDER = Caller(ADMINISTRATOR, frozenset(ADMINISTRATOR.granted_scopes))
"""An administrator with an access token; it is no account of the store, so that the model need not know it."""


class AccountsMachine(RuleBasedStateMachine):
    """Subclasses say where an empty, migrated database is."""

    accounts: Bundle[model.Account] = Bundle("accounts")

    def fresh_url(self) -> str:
        raise NotImplementedError

    def __init__(self) -> None:
        """Opens an empty store."""
        super().__init__()
        self.runner = asyncio.Runner()
        self.time = datetime(2030, 1, 1, tzinfo=UTC)
        self.sources = 0
        self.model = model.Model()
        self.verified = ledger.GENESIS
        self.checked: list[str] = []
        self.vault = Vault(new_root())
        self.store = SqlStore(self.fresh_url(), pool_size=2)
        self.house = self.open()
        self.other = self.open()
        self.last: Callable[[], None] | None = None
        self.purge_job = Purge(self.store, "purger", lambda: self.time)

    def teardown(self) -> None:
        """Tries every secret that was ever made once more, on a process that remembers nothing; then closes."""
        try:
            self.restart()
            for secret in self.model.secrets:
                self.try_secret(self.house, secret)
            assert self.verified == self.run(self.store.head())
        finally:
            self.house.hasher.close()
            self.other.hasher.close()
            self.run(self.store.close())
            self.runner.close()

    @initialize(target=accounts)
    def first_accounts(self) -> Any:
        """Two accounts to begin with, so that every rule has something to work on."""
        return multiple(self.create("ingester", "", None), self.create("query", "", None))

    # What changes accounts and secrets

    @rule(target=accounts, name=NAMES, description=st.sampled_from(["", "b"]), request_id=REQUEST_IDS)
    def create(self, name: str, description: str, request_id: str | None) -> Any:
        """A new account, a retry's answer, or the refusal that the model foresees."""
        self.tick()
        if request_id:
            self.last = lambda: self.create(name, description, request_id) and None
        content = f"{name}|{description}".encode()
        key = ("Create", request_id) if request_id else None
        again, refused = self.model.retried(key, content, self.time)
        if again is None and not refused and self.model.name_taken(name):
            refused = "NAME_TAKEN"
        draft = Draft(name, Role.USER, description=description)
        answer = self.attempt(refused, self.house.accounts.create(draft, BYSTANDER, retry(key, content)))
        if answer is None or again is not None:
            assert answer is None or again is None or answer.client_secret == again.text
            return multiple()
        account = model.Account(answer.account.id, answer.account.client_id, name, description)
        account.secrets.append(self.secret(answer, account))
        self.model.accounts.append(account)
        self.model.changes += 1
        self.model.keep(key, content, account.secrets[0], self.time)
        return account

    @rule(account=accounts, overlap=OVERLAPS, request_id=REQUEST_IDS, tag=ETAGS)
    def rotate(self, account: model.Account, overlap: timedelta | None, request_id: str | None, tag: str) -> None:
        """An administrator rotates."""
        self.tick()
        if request_id and tag != "right":  # an etag that is right now will be another one next time
            self.last = lambda: self.rotate(account, overlap, request_id, tag)
        self.rotated(account, BYSTANDER, overlap, request_id, tag)

    @precondition(lambda self: self.last is not None)
    @rule()
    def send_again(self) -> None:
        """The last request that carried a request_id, as a client repeats it that got no answer."""
        assert self.last is not None
        self.last()

    @rule(account=accounts, which=WHICH, overlap=OVERLAPS)
    def rotate_own(self, account: model.Account, which: int, overlap: timedelta | None) -> None:
        """An account rotates with a secret of its own, if that one still authenticates."""
        self.tick()
        caller = self.try_secret(self.house, account.secret(which))
        if caller is not None:
            self.rotated(account, caller, overlap, None, "")

    @rule(account=accounts, which=WHICH, tag=ETAGS)
    def revoke_secret(self, account: model.Account, which: int, tag: str) -> None:
        """Ends a secret, whichever it is."""
        self.tick()
        secret = account.secret(which)
        target, refused = self.target(account, tag)
        refused = refused or ("SECRET_NOT_FOUND" if secret.ended else "")
        if self.attempt(refused, self.house.rotation.revoke_secret(target, secret.id, BYSTANDER)):
            secret.ended = True
            self.changed(account, void=True)

    @rule(account=accounts, tag=ETAGS)
    def suspend(self, account: model.Account, tag: str) -> None:
        self.tick()
        target, refused = self.target(account, tag)
        refused = refused or ("ACCOUNT_SUSPENDED" if account.suspended else "")
        if self.attempt(refused, self.house.accounts.suspend(target, BYSTANDER)):
            account.suspended = True
            self.changed(account, void=True)

    @rule(account=accounts, tag=ETAGS)
    def activate(self, account: model.Account, tag: str) -> None:
        self.tick()
        target, refused = self.target(account, tag)
        refused = refused or ("" if account.suspended else "ACCOUNT_NOT_SUSPENDED")
        if self.attempt(refused, self.house.accounts.activate(target, BYSTANDER)):
            account.suspended = False
            self.changed(account)

    @rule(account=accounts, tag=ETAGS)
    def delete(self, account: model.Account, tag: str) -> None:
        self.tick()
        target, refused = self.target(account, tag)
        if self.attempt(refused, self.house.accounts.delete(target, BYSTANDER)):
            account.delete_time = self.time
            self.changed(account, void=True)

    @rule(account=accounts, tag=ETAGS)
    def undelete(self, account: model.Account, tag: str) -> None:
        self.tick()
        target, refused = self.target(account, tag, deleted=True)
        if self.attempt(refused, self.house.accounts.undelete(target, BYSTANDER)):
            account.delete_time = None
            self.changed(account)

    @rule(account=accounts, name=NAMES, tag=ETAGS)
    def rename(self, account: model.Account, name: str, tag: str) -> None:
        self.tick()
        target, refused = self.target(account, tag)
        refused = refused or ("NAME_TAKEN" if self.model.name_taken(name, but=account) else "")
        if self.attempt(refused, self.house.accounts.update(target, {"name": name}, BYSTANDER)):
            account.name = name
            self.changed(account)

    # What must change nothing

    @rule(account=accounts, which=WHICH, elsewhere=st.booleans())
    def authenticate(self, account: model.Account, which: int, elsewhere: bool) -> None:
        """A live secret of an active account succeeds on every process, any other fails on every process."""
        self.tick()
        self.try_secret(self.other if elsewhere else self.house, account.secret(which))

    @rule(account=accounts, which=WHICH, borrower=accounts)
    def pretend(self, account: model.Account, which: int, borrower: model.Account) -> None:
        """Neither another account's secret gets in, nor a text of the right form with a known id and checksum."""
        self.tick()
        secret = account.secret(which)
        if borrower is not account:
            self.refused(Credentials(borrower.client_id, secret.text))
        random = secrets.generate().text.rsplit("_", 1)[1][: secrets.RANDOM_LENGTH]
        body = f"{secrets.PREFIX}{secret.id}_{random}"
        self.refused(Credentials(account.client_id, body + secrets.checksum(body)))

    # What time and operators do

    @rule(step=STEPS, purge=st.booleans(), restart=st.booleans())
    def wait(self, step: timedelta, purge: bool, restart: bool) -> None:
        """Time passes; then what has expired is purged, or the process starts again, or both."""
        self.time += step
        if restart:
            self.restart()
        if purge:
            self.run(self.purge_job.run())
            self.model.purge(self.time)
            self.run(self.house.replica.poll())

    # What must always hold

    @invariant()
    def rules_hold(self) -> None:
        self.run(self.check())

    async def check(self) -> None:
        """The chain has a row for each change; the store, and what both processes remember of it, are as the model."""
        rows = await self.store.ledger(self.verified[0], 1000)
        self.verified = ledger.verify(rows, self.verified)
        assert self.verified[0] == self.model.changes
        await self.other.replica.poll()
        stored = {each.id: each for each in await self.store.accounts(AccountQuery(1000, show_deleted=True), self.time)}
        assert stored.keys() == {account.id for account in self.model.stored}
        for account in self.model.stored:
            assert len(stored[account.id].live_secrets(self.time)) <= 2
            assert described(stored[account.id], self.time) == expected(account, self.time)
            for process in (self.house, self.other):
                remembered = await process.replica.account_by_client_id(account.client_id)
                assert remembered is not None
                assert comparable(remembered) == comparable(stored[account.id])

    # How the rules do it

    def restart(self) -> None:
        """The process ends in good order and starts again."""
        self.run(self.house.usage.flush())
        self.house.hasher.close()
        self.house = self.open()

    def run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return self.runner.run(awaited())

    def open(self) -> house.House:
        return self.run(house.opened(self.store, self.vault, lambda: self.time, self.checked))

    def tick(self) -> None:
        """Time passes between steps, and stands still within one."""
        self.time += timedelta(seconds=1)

    def attempt(self, reason: str, work: Awaitable[T]) -> T | None:
        """Does it, and fails unless it is refused for this reason, or succeeds where there is none."""
        done, refused = None, ""
        try:
            done = self.run(work)
        except IdentityError as error:
            refused = error.reason
        assert refused == reason
        return done

    def target(self, account: model.Account, tag: str, *, deleted: bool = False) -> tuple[Target, str]:
        """The account with an etag that is right, of before, or missing; and why a verb on it must be refused."""
        stored = self.run(self.store.account(account.id))
        value = {"": "", "right": etag(stored) if stored else "", "stale": "0" * 16}[tag]
        refused = self.model.refusal(account, self.time, deleted=deleted)
        if tag == "stale" and refused != "NOT_FOUND":
            refused = "ETAG_MISMATCH"
        return Target(account.id, value), refused

    def rotated(
        self, account: model.Account, caller: Caller, overlap: timedelta | None, request_id: str | None, tag: str
    ) -> None:
        target, refused = self.target(account, tag)
        content = f"{account.id}|{overlap}|{target.etag}".encode()
        key = ("Rotate", request_id) if request_id else None
        again, spent = (None, "") if refused == "NOT_FOUND" else self.model.retried(key, content, self.time)
        refused = spent if again or spent else refused or self.model.rotation_refusal(account, self.time)
        answer = self.attempt(refused, self.house.rotation.rotate_secret(target, caller, overlap, retry(key, content)))
        if answer is None or again is not None:
            assert answer is None or again is None or answer.client_secret == again.text
            return
        made = self.secret(answer, account)
        self.model.rotated(account, made, overlap, self.time)
        self.model.keep(key, content, made, self.time)

    def secret(self, answer: Answer, owner: model.Account) -> model.Secret:
        return model.Secret(answer.secret.id, answer.client_secret, owner, self.time + model.SECRET_LIFETIME)

    def changed(self, account: model.Account, *, void: bool = False) -> None:
        self.model.changes += 1
        if void:
            self.model.void(account)

    def try_secret(self, process: house.House, secret: model.Secret) -> Caller | None:
        """Authenticates, as the model says; and however often it is done, bcrypt ran once for it at most."""
        credentials = Credentials(secret.owner.client_id, secret.text)
        caller = None
        if secret.owner.may_authenticate(secret, self.time):
            caller = self.run(process.authenticator.client(credentials, self.source()))
            assert (caller.account.id, caller.secret_id) == (secret.owner.id, secret.id)
        else:
            self.refused(credentials, process)
        secret.used = secret.used or not (secret.ended or secret.owner.purged)
        assert self.checked.count(secret.text) <= 1
        return caller

    def refused(self, credentials: Credentials, process: house.House | None = None) -> None:
        authenticator = (process or self.house).authenticator
        try:
            self.run(authenticator.client(credentials, self.source()))
        except InvalidClient:
            return
        raise AssertionError("it authenticated")

    def source(self) -> str:
        """Never the same twice: back-off after failures has tests of its own."""
        self.sources += 1
        return f"source {self.sources}"


def retry(key: tuple[str, str] | None, content: bytes) -> Retry | None:
    return Retry(key[1], ADMINISTRATOR.id, key[0], content) if key else None


def described(account: Stored, now: datetime) -> dict[str, Any]:
    """What the model can know of a stored account."""
    return {
        "client_id": account.client_id,
        "name": account.name,
        "state": account.state(now).value,
        "secrets": {secret.id: secret.expire_time for secret in account.secrets},
        "live": [secret.id for secret in account.live_secrets(now)],
    }


def comparable(account: Stored) -> Stored:
    """Without what no ledger row tells: tags and last uses."""
    told = [replace(secret, tag=None, last_used_time=None, last_used_source="") for secret in account.secrets]
    return replace(account, secrets=tuple(told))


def expected(account: model.Account, now: datetime) -> dict[str, Any]:
    return {
        "client_id": account.client_id,
        "name": account.name,
        "state": account.state(now),
        "secrets": {secret.id: secret.expire_time for secret in account.secrets if not secret.ended},
        "live": [secret.id for secret in account.live_secrets(now)],
    }


URLs = Callable[[], str]


def machine(urls: URLs) -> type[AccountsMachine]:
    """A machine whose every example has a database of its own."""

    class OnThisStore(AccountsMachine):
        def fresh_url(self) -> str:
            return urls()

    return OnThisStore
