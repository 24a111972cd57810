"""What this process remembers of the store, kept true by tailing the ledger, which docs/architecture.md draws.

Accounts are read once and dropped when a ledger row touches them; what verifiers must know is all held (trust.py). The
tail's poll is also the one monitor of the database: when it fails, `outage` begins, and remembered accounts keep being
served until the outage window ends. Nothing here decides who may do what.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from artstore_grpc.counters import Lookups
from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.key_policy import LEEWAY
from artstore_grpc.lookups import LookUps
from artstore_grpc.model import MAX_HASH_COST, Account
from artstore_grpc.records import REPORTS, EventKind, LedgerRow
from artstore_grpc.store.protocol import Store
from artstore_grpc.trust import EPOCH_MEMORY, Trust

POLL_INTERVAL = timedelta(milliseconds=250)
POLL_TIMEOUT = timedelta(seconds=2)
"""After so long without an answer the database counts as down."""
BEAT_INTERVAL = timedelta(seconds=1)
"""How often those who follow are told that nothing is missing (docs/trust.md)."""
DEFECT_SECONDS = 1.0
STALL_SECONDS = 10.0
"""How late a poll may be, on a busy machine, before that counts as having been stopped."""
FORGET_INTERVAL = timedelta(minutes=1)
"""How often expired revocations are dropped; till then they only refuse tokens that have expired anyway."""
BATCH = 1000
RECENT_ROWS = 1000
"""How many rows of before the start are read, so that verifiers who come from another replica go on where they were."""
MAX_ACCOUNTS = 100_000
"""About 2 KB each."""
NOBODY = "nobody"
"""No account's client_id: to look it up takes as long as to find that an account doesn't exist."""
KEYS = "key."
"""How the kinds of rows about signing keys begin."""


async def nothing() -> None:
    """For keys that nobody follows, and changes that nobody is told of."""


class Replica:
    """One process's view. `announce` tells the other processes that there is something new to read."""

    def __init__(
        self,
        store: Store,
        now: Callable[[], datetime],
        *,
        outage_window: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
        on_change: Callable[[], None] = lambda: None,
        on_keys: Callable[[], Awaitable[object]] = nothing,
        announce: Callable[[], Awaitable[None]] = nothing,
    ) -> None:
        self.trust = Trust()
        self.outage_since: float | None = -math.inf  # until `load` has read the store
        self.database_up: bool | None = None
        """Whether the database answered the last poll in time; None until a start has had an answer, or had none."""
        self.imported_cost = 0
        """The highest cost of an imported secret's hash; 0: there is none. It comes down at a restart only."""
        self.lookups = Lookups()
        """Of accounts in memory."""
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._window_seconds = outage_window.total_seconds()
        self._on_change = on_change
        self._on_keys = on_keys
        self._announce = announce
        self._keys_changed = True
        self._replaced = False
        self._as_of = -math.inf
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._client_ids: dict[str, str] = {}
        self._forget_at = 0.0
        self._beat_at = 0.0
        self._woken = asyncio.Event()
        self._told = (True, False)
        self._catching_up = asyncio.Lock()
        self._by_id = LookUps(self._read_by_id)
        self._by_client_id = LookUps(self._read_by_client_id)

    async def load(self) -> None:
        """Reads where the ledger stands, and all that verifiers must know. Raises StoreUnavailable."""
        started = self._monotonic()
        head, now = await self._store.head(), self._now()
        self.trust.load(
            head,
            await self._store.ledger(max(0, head[0] - RECENT_ROWS), RECENT_ROWS),
            keys=await self._store.signing_keys(),
            revocations=await self._store.revocations(now - LEEWAY),
            accounts=await self._store.account_trusts(now - EPOCH_MEMORY),
        )
        self.imported_cost = await self._store.imported_cost(now)
        self._keys_changed = True
        await self._follow_keys(started)
        self._find()
        self._tell()

    @property
    def loaded(self) -> bool:
        """Whether it has ever known anything. Until then its process serves nobody."""
        return self._as_of > -math.inf

    @property
    def sequence(self) -> int:
        """The last ledger row that was applied."""
        return self.trust.head[0]

    @property
    def outage(self) -> bool:
        """Whether the database is down, or was not heard of for so long (a process that was stopped) that it counts as
        down until the next poll: what this process knows, its keys too, is as old."""
        return self.outage_since is not None or self._monotonic() - self._as_of > STALL_SECONDS

    @property
    def serving(self) -> bool:
        """Whether remembered accounts may be served: the database is up, or the outage window has not ended."""
        if self.outage_since is not None:
            return self._monotonic() - self.outage_since < self._window_seconds
        return self._monotonic() - self._as_of < self._window_seconds + STALL_SECONDS

    @property
    def staleness_seconds(self) -> float:
        """How long ago the store was last as this process knows it: every change committed before then is known."""
        return self._monotonic() - self._as_of

    def remembered(self, client_id: str) -> Account | None:
        """An account, if it is in memory. Raises StoreUnavailable once the outage window has ended."""
        account = self._accounts.get(client_id)
        if account is None:
            self.lookups.misses += 1
            return None
        if not self.serving:
            raise StoreUnavailable("the outage window has ended")
        self.lookups.hits += 1
        self._accounts.move_to_end(client_id)
        return account

    async def account_by_client_id(self, client_id: str) -> Account | None:
        """An account, from memory if it is there. Raises StoreUnavailable when it isn't and can't be read."""
        return self.remembered(client_id) or await self.reread(client_id)

    async def account(self, id: str) -> Account | None:
        """As `account_by_client_id`, by id."""
        client_id = self._client_ids.get(id)
        if client_id is not None:
            return await self.account_by_client_id(client_id)
        self.lookups.misses += 1
        self.require_database()
        return await self._by_id.find(id)

    async def reread(self, client_id: str) -> Account | None:
        """An account as the store has it now."""
        self.require_database()
        return await self._by_client_id.find(client_id)

    async def look_up(self, client_id: str) -> Account | None:
        """As `reread`, for whom a stranger may have named: under load all who ask at a time share a statement."""
        self.require_database()
        return await self._by_client_id.find_patiently(client_id)

    def want(self, client_id: str) -> None:
        """Has an account read into memory soon, for whoever needs it next. Raises StoreUnavailable in an outage."""
        self.require_database()
        self._by_client_id.want(client_id)

    async def close(self) -> None:
        """To be called before the store is closed."""
        await self._by_client_id.close()

    async def _read_by_id(self, ids: Sequence[str]) -> dict[str, Account]:
        sequence = self.sequence
        found = await self._store.accounts_by_id(ids)
        for account in found:
            self._remember(account, sequence)
        return {account.id: account for account in found}

    async def _read_by_client_id(self, client_ids: Sequence[str]) -> dict[str, Account]:
        sequence = self.sequence
        found = {account.client_id: account for account in await self._store.accounts_by_client_id(client_ids)}
        for account in found.values():
            self._remember(account, sequence)
        return found

    def require_database(self) -> None:
        """Raises StoreUnavailable at once while the database is known to be down."""
        if self.outage:
            raise StoreUnavailable("the database is down")

    def learn_tag(self, client_id: str, secret_id: str, tag: bytes) -> None:
        """Remembers the tag that a secret has just earned."""
        account = self._accounts.get(client_id)
        if account is not None:
            secrets = tuple(replace(s, tag=tag) if s.id == secret_id else s for s in account.secrets)
            self._accounts[client_id] = replace(account, secrets=secrets)

    async def catch_up(self) -> None:
        """Applies every ledger row committed by now; called by the poll, and after each write of this process."""
        async with self._catching_up:
            started = self._monotonic()
            full = await self._store.head() != self.trust.head  # two columns: what nearly every poll reads
            while full:
                rows = await self._store.ledger(max(self.sequence - 1, 0), BATCH)
                full = len(rows) == BATCH
                if self.sequence and (not rows or (rows[0].sequence, rows[0].hash) != self.trust.head):
                    self._replaced = True
                    self.wake()  # the tail begins anew, and has more time for that than a poll
                    return
                for row in rows[1 if self.sequence else 0 :]:  # the first was applied, and is read to be compared
                    self._apply(row)
            await self._follow_keys(started)

    async def _follow_keys(self, started: float) -> None:
        """Has the keys read anew if a row was about them; until that has succeeded no turn of the tail counts."""
        if self._keys_changed:
            await self._on_keys()
            self._keys_changed = False
        self._as_of = started

    async def after_write(self) -> None:
        """Reads one's own write back; if that fails the write stands all the same, and the poll brings it."""
        await self._announce()
        with contextlib.suppress(StoreUnavailable):
            await self.catch_up()

    def wake(self) -> None:
        """Has the tail poll at once."""
        self._woken.set()

    async def tail(self) -> None:
        """One turn of the tail, until something is announced or POLL_INTERVAL has passed."""
        self._woken.clear()
        try:
            await self.poll()
        except Exception:
            await asyncio.sleep(DEFECT_SECONDS)  # a loop that fails at once would do nothing else
            raise
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL.total_seconds()):
                await self._woken.wait()

    async def poll(self) -> None:
        """One turn of the tail: catches up, and notices that the database went away or came back."""
        try:
            async with asyncio.timeout(POLL_TIMEOUT.total_seconds()):
                await self.catch_up()
            if self._replaced:
                await self._start_over()
            self._find()
        except (StoreUnavailable, TimeoutError):
            self.lose()
        except Exception:
            self.lose()  # whatever it is that can't be read, nothing new is known
            raise
        finally:
            self._beat()
            self._tell()

    def lose(self) -> None:
        """Takes note that the database doesn't answer."""
        self.database_up = False
        if self.outage_since is None:
            self.outage_since = self._monotonic()

    def _find(self) -> None:
        self.database_up, self.outage_since = True, None

    def _tell(self) -> None:
        """Says once that the database went away, came back, or that the outage window has ended."""
        state = (self.outage, self.serving)
        if state != self._told:
            self._told = state
            self._on_change()

    async def _start_over(self) -> None:
        """The ledger isn't the one that was applied (a restored backup, a failover that lost commits): forgets all."""
        async with self._catching_up:
            self._accounts.clear()
            self._client_ids.clear()
            await self.load()
            self._replaced = False

    def _remember(self, account: Account, sequence: int) -> None:
        """Keeps an account, unless a row was applied since it was read: that row may have been about it."""
        if sequence != self.sequence:
            return
        self._accounts[account.client_id] = account
        self._accounts.move_to_end(account.client_id)
        self._client_ids[account.id] = account.client_id
        if len(self._accounts) > MAX_ACCOUNTS:
            _, oldest = self._accounts.popitem(last=False)
            self._client_ids.pop(oldest.id, None)

    def _apply(self, row: LedgerRow) -> None:
        self.trust.apply(row)
        self._keys_changed |= row.kind.startswith(KEYS)
        if row.kind in REPORTS:
            return  # or who fails in an account's name would have it forgotten, and read again, each minute
        if row.kind == EventKind.ACCOUNT_CREATED:
            self.imported_cost = max(self.imported_cost, imported_cost(row))
        else:
            client_id = self._client_ids.pop(row.subject, None)
            if client_id is not None:
                self._accounts.pop(client_id, None)

    def _beat(self) -> None:
        """Once a second, has those who follow look up; once a minute, forgets what has expired."""
        time = self._monotonic()
        if time >= self._beat_at:
            self._beat_at = time + BEAT_INTERVAL.total_seconds()
            self.trust.beat(fresh=not self.outage)
        if time >= self._forget_at:
            self._forget_at = time + FORGET_INTERVAL.total_seconds()
            self.trust.forget_expired(self._now())


def imported_cost(row: LedgerRow) -> int:
    """The cost of the hash that an account was imported with; 0 for one that was not, or without a secret."""
    if '"secret_cost":' not in row.detail:
        return 0
    try:
        return min(int(row.parsed()["secret_cost"]), MAX_HASH_COST)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0  # a row that was altered is for a verifier to find
