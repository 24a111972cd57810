"""What a verifier must know, as of one row of the ledger: keys, revoked tokens, accounts that are refused. No I/O.

It is loaded from the store once and moved on by ledger rows alone (ADR 0013). The last rows are kept, so that a
verifier that was away goes on where it was; one that was away for longer starts over with a snapshot. Every row sets
what it is about to what it now is, so that applying one twice does no harm.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from artstore_grpc.errors import OutOfRange
from artstore_grpc.key_policy import LEEWAY_SECONDS
from artstore_grpc.ledger import GENESIS, Head
from artstore_grpc.model import AccountTrust, KeyState, Revocation, SigningKey
from artstore_grpc.records import EventKind, LedgerRow

KEPT_ROWS = 10_000
"""How far back a verifier may have been away; about 500 bytes each."""
SNAPSHOT_ROWS = 4_000
"""How many rows a snapshot may be old when it is given again: the rows since then follow it."""
CHANGES = 4_000
"""Tokens, keys and accounts that are told at once; a last row may bring more."""
EPOCH_MEMORY = timedelta(days=1, minutes=5)
"""How long a raised epoch is told: until every token of before has expired (86,400 s is the most a token may live)."""

PUBLISHED = frozenset({KeyState.PREPARED, KeyState.ACTIVE, KeyState.RETIRED})


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A signing key: `jwk` is None for one that is not published any more."""

    kid: str
    state: KeyState
    jwk: dict[str, str] | None


@dataclass(frozen=True, slots=True)
class RevokedToken:
    """A token that is refused until LEEWAY_SECONDS after `exp`, in seconds since 1970: no clock is the only one."""

    jti: str
    exp: int
    account_id: str


@dataclass(frozen=True, slots=True)
class Voided:
    """An account whose older tokens are void, and the revoked ones among them, which need not be remembered now."""

    account: AccountTrust
    jtis: tuple[str, ...] = ()


Change = TrustedKey | RevokedToken | AccountTrust | Voided


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All of it at once."""

    sequence: int
    hash: bytes
    keys: Sequence[TrustedKey]
    revoked: Sequence[tuple[str, tuple[int, str]]]
    """`jti`, and its `exp` and account: as plain tuples, since there may be a hundred thousand."""
    accounts: Sequence[AccountTrust]


@dataclass(frozen=True, slots=True)
class Kept:
    """A row that was applied, and what it changed for verifiers, if anything."""

    sequence: int
    hash: bytes
    change: Change | None

    @property
    def size(self) -> int:
        """How much it has to tell."""
        return 1 + len(self.change.jtis) if isinstance(self.change, Voided) else int(self.change is not None)


class Trust:
    """One process's view, complete up to `head`. `beats` counts how often it was found up to date with the ledger."""

    def __init__(self) -> None:
        self.head: Head = GENESIS
        self.generation = 0
        """Grows when another ledger took the place of the one that was followed."""
        self.beats = 0
        self.changed = 0
        """The last row that meant anything to verifiers."""
        self._floor: Head = GENESIS
        """Every row after it is kept."""
        self._kept: deque[Kept] = deque()
        self._keys: dict[str, TrustedKey] = {}
        self._revoked: dict[str, tuple[int, str]] = {}
        self._jtis: defaultdict[str, set[str]] = defaultdict(set)
        """The revoked tokens of each account that has any."""
        self._accounts: dict[str, AccountTrust] = {}
        self._snapshot: Snapshot | None = None
        self._moved = asyncio.Event()

    def load(
        self,
        head: Head,
        recent: Iterable[LedgerRow],
        *,
        keys: Iterable[SigningKey],
        revocations: Iterable[Revocation],
        accounts: Iterable[AccountTrust],
    ) -> None:
        """Begins anew with what the store has: at least all up to `head`, of which `recent` are the last rows."""
        self.generation += 1
        self._keys = {key.kid: TrustedKey(key.kid, key.state, key.public_jwk) for key in keys}
        self._keys = {kid: key for kid, key in self._keys.items() if key.state in PUBLISHED}
        self._revoked = {
            each.jti: (int(each.expire_time.timestamp()), sys.intern(each.account_id)) for each in revocations
        }
        self._jtis = defaultdict(set)
        for jti, (_, account_id) in self._revoked.items():
            self._jtis[account_id].add(jti)
        self._accounts = {account.id: account for account in accounts}
        rows = [row for row in recent if row.sequence <= head[0]]
        self._floor = (rows[0].sequence - 1, rows[0].previous_hash) if rows else head
        self._kept = deque(Kept(row.sequence, row.hash, self._now_of(row)) for row in rows)
        self.head, self._snapshot = head, None
        self.wake()

    def is_revoked(self, jti: str) -> bool:
        return jti in self._revoked

    def refuses(self, account_id: str, jti: str, epoch: int) -> bool:
        """Whether a token is refused, as every verifier decides it."""
        account = self._accounts.get(account_id)
        return jti in self._revoked or (account is not None and (account.refused or epoch < account.epoch))

    def apply(self, row: LedgerRow) -> None:
        """Moves on by the row that follows the head."""
        change = self._change_of(row)
        if isinstance(change, Voided):
            change = replace(change, jtis=tuple(self._jtis.pop(change.account.id, ())))
        self.head = (row.sequence, row.hash)
        self._kept.append(Kept(row.sequence, row.hash, change))
        if len(self._kept) > KEPT_ROWS:
            oldest = self._kept.popleft()
            self._floor = (oldest.sequence, oldest.hash)
        if change is not None:
            self.changed = row.sequence
            self._hold(change)
            self.wake()

    def _hold(self, change: Change) -> None:
        match change:
            case TrustedKey(kid):
                if change.jwk is None:
                    self._keys.pop(kid, None)
                else:
                    self._keys[kid] = change
            case RevokedToken(jti, exp, account_id):
                self._revoked[jti] = (exp, account_id)
                self._jtis[account_id].add(jti)
            case Voided(account, jtis):
                self._hold(account)
                for jti in jtis:
                    del self._revoked[jti]
            case AccountTrust(id):
                if change.refused or change.epoch:
                    self._accounts[id] = change
                else:
                    self._accounts.pop(id, None)

    def _change_of(self, row: LedgerRow) -> Change | None:
        """What a row means to verifiers."""
        if row.kind == EventKind.TOKEN_REVOKED:
            detail = row.parsed()
            exp = int(datetime.fromisoformat(detail["expire_time"]).timestamp())
            return RevokedToken(row.subject, exp, sys.intern(detail.get("account_id", "")))
        if row.kind in KEY_STATES:
            return self._key_change(row, KEY_STATES[EventKind(row.kind)])
        if row.kind in ACCOUNT_CHANGES:
            return ACCOUNT_CHANGES[EventKind(row.kind)](self._accounts.get(row.subject, AccountTrust(row.subject)))
        if row.kind == EventKind.ACCOUNT_PURGED:
            return AccountTrust(row.subject)
        if row.kind in (EventKind.SECRET_ROTATED, EventKind.TOKENS_VOIDED) and "epoch" in (detail := row.parsed()):
            before = self._accounts.get(row.subject, AccountTrust(row.subject))
            return Voided(replace(before, epoch=detail["epoch"], epoch_time=row.time))
        return None

    def _now_of(self, row: LedgerRow) -> Change | None:
        """As `_change_of`, for a row of before the load: what it is about, as it was loaded."""
        change = self._change_of(row)
        if isinstance(change, Voided):
            change = change.account
        if isinstance(change, AccountTrust):
            return self._accounts.get(change.id, AccountTrust(change.id))
        if isinstance(change, RevokedToken) and change.jti not in self._revoked:
            return None  # expired, or void since
        if isinstance(change, TrustedKey):
            return self._keys.get(change.kid, TrustedKey(change.kid, KeyState.REVOKED, None))
        return change

    def _key_change(self, row: LedgerRow, state: KeyState | None) -> TrustedKey | None:
        detail = row.parsed()
        state = state or KeyState(detail["state"])
        known = self._keys.get(row.subject)
        jwk = detail.get("public_jwk") or (known.jwk if known else None)
        if state not in PUBLISHED:
            return TrustedKey(row.subject, KeyState.REVOKED, None)
        return TrustedKey(row.subject, state, jwk) if jwk else None

    def forget_expired(self, now: datetime) -> None:
        """Drops revocations of expired tokens, and epochs that no live token is below. Nobody needs to be told."""
        seconds = int(now.timestamp()) - LEEWAY_SECONDS
        for jti in [jti for jti, (exp, _) in self._revoked.items() if exp <= seconds]:
            _, account_id = self._revoked.pop(jti)
            self._jtis[account_id].discard(jti)
            if not self._jtis[account_id]:
                del self._jtis[account_id]
        for account in list(self._accounts.values()):
            if not account.refused and (account.epoch_time is None or account.epoch_time < now - EPOCH_MEMORY):
                del self._accounts[account.id]

    def snapshot(self) -> Snapshot:
        """All of it, as of now or of a few rows ago: the changes after its sequence follow."""
        last = self._snapshot
        if last is None or self.head[0] - last.sequence > SNAPSHOT_ROWS or last.sequence < self._floor[0]:
            last = self._snapshot = self.current()
        return last

    def current(self) -> Snapshot:
        """All of it, as of now."""
        keys, accounts = tuple(self._keys.values()), tuple(self._accounts.values())
        return Snapshot(*self.head, keys, tuple(self._revoked.items()), accounts)

    def changes_after(self, sequence: int) -> tuple[Head, list[Change]]:
        """What has changed since a row that was applied, and up to which: the head, or, where there is more than
        CHANGES to tell, a row before. Raises OutOfRange when that is longer ago than is kept."""
        if sequence < self._floor[0]:
            raise OutOfRange(reason="FELL_BEHIND")
        upto, size = self.head, 0
        changes: list[Change] = []
        for kept in reversed(list(islice(reversed(self._kept), self.head[0] - sequence))):
            if kept.change is not None:
                changes.append(kept.change)
                size += kept.size
                if size >= CHANGES:
                    upto = (kept.sequence, kept.hash)
                    break
        return upto, changes

    def require(self, sequence: int, hash: bytes) -> None:
        """Raises OutOfRange unless a row is one to go on from: of this ledger, not in its future, and not too old."""
        at = sequence - self._floor[0]
        if not 0 <= at <= len(self._kept):
            raise OutOfRange
        found = self._floor[1] if at == 0 else self._kept[at - 1].hash
        if hash and hash != found:
            raise OutOfRange

    def beat(self, *, fresh: bool) -> None:
        """Has everybody who follows look up, about once a second; `fresh`: it is known to be all there is."""
        self.beats += fresh
        self.wake()

    def wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    @property
    def moved(self) -> asyncio.Event:
        """Is set when something has changed, or has been found not to have. Take it before looking."""
        return self._moved


KEY_STATES: dict[EventKind, KeyState | None] = {
    EventKind.KEY_CREATED: None,  # its detail says in which state it was made
    EventKind.KEY_ACTIVATED: KeyState.ACTIVE,
    EventKind.KEY_RETIRED: KeyState.RETIRED,
    EventKind.KEY_REVOKED: KeyState.REVOKED,
    EventKind.KEY_PURGED: KeyState.REVOKED,
}

ACCOUNT_CHANGES: dict[EventKind, Callable[[AccountTrust], AccountTrust]] = {
    EventKind.ACCOUNT_SUSPENDED: lambda account: replace(account, suspended=True),
    EventKind.ACCOUNT_ACTIVATED: lambda account: replace(account, suspended=False),
    EventKind.ACCOUNT_DELETED: lambda account: replace(account, deleted=True),
    EventKind.ACCOUNT_UNDELETED: lambda account: replace(account, deleted=False),
}
