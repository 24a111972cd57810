"""What should be true of accounts and secrets, in plain Python: written from what was asked for, not from the service.

Each verb first says with which reason it must be refused ("" when it must succeed), then is told what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

ANSWERED_FOR = timedelta(minutes=10)
KNOWN_FOR = timedelta(hours=24, minutes=10)
RETENTION = timedelta(days=30)
SECRET_LIFETIME = timedelta(days=90)
DEFAULT_OVERLAP = timedelta(hours=24)


@dataclass(eq=False)
class Secret:
    """A secret that was ever made. `ended` by a verb, or past `expire_time`: dead for good."""

    id: str
    text: str = field(repr=False)
    owner: Account
    expire_time: datetime
    used: bool = False
    ended: bool = False

    def live(self, now: datetime) -> bool:
        return not self.ended and now < self.expire_time


@dataclass(eq=False)
class Account:
    """An account that was ever made; `secrets` are all it ever had, the newest first."""

    id: str
    client_id: str
    name: str
    description: str = ""
    suspended: bool = False
    delete_time: datetime | None = None
    purged: bool = False
    secrets: list[Secret] = field(default_factory=list)

    def gone(self, now: datetime) -> bool:
        """Whether nobody may see it any more: purged, or due to be."""
        return self.purged or (self.delete_time is not None and self.delete_time + RETENTION <= now)

    def secret(self, which: int) -> Secret:
        """One of those it ever had: 0 is the newest."""
        return self.secrets[which % len(self.secrets)]

    def live_secrets(self, now: datetime) -> list[Secret]:
        return [secret for secret in self.secrets if secret.live(now)]

    def state(self, now: datetime) -> str:
        if self.delete_time:
            return "deleted"
        if self.suspended:
            return "suspended"
        kept = [secret for secret in self.secrets if not secret.ended]
        return "expired" if kept and not self.live_secrets(now) else "active"

    def may_authenticate(self, secret: Secret, now: datetime) -> bool:
        return self.state(now) == "active" and not self.purged and secret.live(now)


@dataclass(eq=False)
class Replay:
    """The answer that a request_id was given."""

    content: bytes
    time: datetime
    secret: Secret
    void: bool = False


@dataclass
class Model:
    """All accounts, all answers to requests that may be retried, and how many changes the ledger must hold."""

    accounts: list[Account] = field(default_factory=list)
    replays: dict[tuple[str, str], Replay] = field(default_factory=dict)
    changes: int = 0

    @property
    def secrets(self) -> list[Secret]:
        return [secret for account in self.accounts for secret in account.secrets]

    @property
    def stored(self) -> list[Account]:
        return [account for account in self.accounts if not account.purged]

    def name_taken(self, name: str, but: Account | None = None) -> bool:
        return any(account.name == name and account is not but for account in self.stored)

    def retried(self, key: tuple[str, str] | None, content: bytes, now: datetime) -> tuple[Secret | None, str]:
        """What a request with this request_id must get: the secret of before, or a refusal, or neither (it is new)."""
        replay = self.replays.get(key) if key else None
        if replay is None:
            return None, ""
        if replay.content != content:
            return None, "REQUEST_ID_REUSED"
        if replay.void or now - replay.time > ANSWERED_FOR:
            return None, "REQUEST_ID_SPENT"
        return replay.secret, ""

    def keep(self, key: tuple[str, str] | None, content: bytes, secret: Secret, now: datetime) -> None:
        if key:
            self.replays[key] = Replay(content, now, secret)

    def void(self, account: Account) -> None:
        for replay in self.replays.values():
            replay.void |= replay.secret.owner is account

    def refusal(self, account: Account, now: datetime, *, deleted: bool = False) -> str:
        """Of any verb on an account, before what the verb itself asks for."""
        if account.gone(now):
            return "NOT_FOUND"
        if deleted != (account.delete_time is not None):
            return "ACCOUNT_NOT_DELETED" if deleted else "ACCOUNT_DELETED"
        return ""

    def rotation_refusal(self, account: Account, now: datetime) -> str:
        live = account.live_secrets(now)
        return "TWO_LIVE_SECRETS" if len(live) == 2 and all(secret.used for secret in live) else ""

    def rotated(self, account: Account, made: Secret, overlap: timedelta | None, now: datetime) -> None:
        """At most one old secret lives on, shortened to the overlap: of two the used one, or the older."""
        overlap = DEFAULT_OVERLAP if overlap is None else overlap
        live = account.live_secrets(now)
        if len(live) == 2:
            next(secret for secret in live if not secret.used).ended = True
        for secret in account.secrets:
            secret.ended = secret.ended or overlap == timedelta(0) or not secret.live(now)
            secret.expire_time = min(secret.expire_time, now + overlap)
        account.secrets.insert(0, made)
        self.void(account)
        self.changes += 1

    def purge(self, now: datetime) -> None:
        """Accounts deleted 30 days ago go, with the answers about them, and so do answers that are no longer known."""
        for account in self.stored:
            if account.delete_time and account.delete_time < now - RETENTION:
                account.purged = True
                self.changes += 1
        self.replays = {
            key: replay
            for key, replay in self.replays.items()
            if replay.time >= now - KNOWN_FOR and not replay.secret.owner.purged
        }
