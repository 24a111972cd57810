"""What is due by the plan (rotations.py), done: by one replica at a time, under a lease whose fence each unit checks.

A step is planned from what was read, carried out in a unit that reads again, and done only if it is still due there: of
two replicas that think that they hold the lease one rotates. A replica that dies leaves a secret that is sealed in the
store; the next one delivers that. What fails is tried again later, and nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from artstore_grpc import rotations
from artstore_grpc.deliveries import Deliveries, SinkSilent
from artstore_grpc.errors import (
    FailedPrecondition,
    IdentityError,
    Internal,
    LeaseLost,
    StoreUnavailable,
    Unavailable,
)
from artstore_grpc.model import Account, Lease, Look, RotationMode
from artstore_grpc.records import SYSTEM, Actor
from artstore_grpc.replica import Replica
from artstore_grpc.rotation import kept_beside, new_secret
from artstore_grpc.rotation_steps import FRESH_RETRY, Change
from artstore_grpc.rotations import Action, Step
from artstore_grpc.secrets import Hasher
from artstore_grpc.sinks.protocol import SinkFailed
from artstore_grpc.store.protocol import Store
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.telemetry.metrics import Metrics

INTERVAL = timedelta(seconds=30)
LEASE = "rotations"
LEASE_LIFETIME = timedelta(seconds=30)
"""After a crash of the replica that was at it another goes on this much later; renewed at half. A step takes at most
the 10 s of a delivery, and the store's own timeouts."""
BUSY_RETRY = timedelta(seconds=2)
RETRY = timedelta(hours=1)
"""When a step that can't be done is tried again: two live secrets, a sink that the settings have no longer."""
BATCH = 200
AT_ONCE = 8
"""Accounts that are worked on at once, so that a slow sink holds up few others."""
MAX_STEPS = 8
"""Of one account in one turn: a bound, should they undo each other's work."""
RUN_SECONDS = 15.0
"""How long a call keeps beginning steps; its deadline is 30 s."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step; no error where it was done."""

    step: Step
    error: IdentityError | None = None


@dataclass(slots=True)
class Turn:
    """One replica's turn: its lease, on whose behalf it acts, and what it may still do.

    `ahead`: of accounts at which something failed nothing is looked at for a while; a turn that somebody asks for does
    so all the same, and has to look so far ahead for them."""

    lease: Lease
    actor: Actor
    most: float = float("inf")
    until: float = float("inf")
    ahead: timedelta = timedelta(0)
    results: list[Result] = field(default_factory=list)
    begun: Counter[str] = field(default_factory=Counter)
    """Steps by account."""
    silent: set[str] = field(default_factory=set)
    """Sinks that let an attempt time out: in this turn nobody else waits for them."""
    _count: int = 0
    _failures: set[tuple[str, Action, str]] = field(default_factory=set)

    def failed(self, step: Step) -> bool:
        """Whether it was tried in this turn, and failed."""
        return (step.account_id, *step.about) in self._failures

    def take(self, step: Step) -> bool:
        """Whether the step may begin."""
        if not self.open or self.begun[step.account_id] >= MAX_STEPS or self.failed(step):
            return False
        self.begun[step.account_id] += 1
        self._count += 1
        return True

    def ended(self, step: Step, error: IdentityError | None) -> None:
        self.results.append(Result(step, error))
        if error is not None:
            self._failures.add((step.account_id, *step.about))

    @property
    def open(self) -> bool:
        """Whether any step may begin."""
        return self._count < self.most and time.monotonic() < self.until


class Overtaken(Exception):
    """A step isn't due any more: somebody has done it, or changed the account."""


class ScheduledRotation:
    """Does what is due. Callers are authenticated and have passed the policy table."""

    def __init__(
        self,
        *,
        store: Store,
        replica: Replica,
        hasher: Hasher,
        deliveries: Deliveries,
        idle: timedelta,
        metrics: Metrics,
        logger: Logger,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._replica = replica
        self._hasher = hasher
        self._deliveries = deliveries
        self._idle = idle
        self._metrics = metrics
        self._logger = logger
        self._now = now
        self._holder = uuid.uuid4().hex
        self._working = asyncio.Lock()
        self._hashing = asyncio.Lock()
        """One hash at a time: who authenticates for the first time waits in the same queue."""

    async def turn(self) -> None:
        """Does all that is due, if no other replica is at it."""
        if not self._working.locked() and await self._store.due_accounts(self._now(), 1):
            with contextlib.suppress(Unavailable):
                await self._work(SYSTEM)

    async def run(self, actor: Actor, most: int) -> tuple[list[Result], bool]:
        """Does at most so many of the steps that are due; whether there are more. Raises Unavailable while another
        call, or another replica, is at it."""
        try:
            turn = await self._work(actor, most=most, until=time.monotonic() + RUN_SECONDS, ahead=RETRY)
        except LeaseLost:
            raise busy() from None
        return turn.results, await self._more(turn)

    async def _more(self, turn: Turn) -> bool:
        """Whether something is due that did not fail in this turn."""
        due = await self.due(len(turn.results) + 1)
        return any(not turn.failed(step) for step in due)

    async def due(self, most: int) -> list[Step]:
        """At most so many of the steps that are due, of each account the first."""
        found: list[Step] = []
        now = self._now()
        async for _, account in self._accounts(now + RETRY):
            found += rotations.due(account, now, self._idle)[:1]
            if len(found) >= most:
                break
        return found

    async def _accounts(self, through: datetime) -> AsyncIterator[tuple[datetime, Account]]:
        after: tuple[datetime, str] | None = None
        while page := await self._store.due_accounts(through, BATCH, after):
            for each in page:
                yield each
            after = (page[-1][0], page[-1][1].id)

    async def _work(self, actor: Actor, **bounds: Any) -> Turn:
        if self._working.locked():
            raise busy()
        async with self._working:
            try:
                turn = Turn(await self._acquire(), actor, **bounds)
            except LeaseLost:
                raise busy() from None
            try:
                while await self._round(turn):
                    await self._replica.after_write()
            finally:
                with contextlib.suppress(StoreUnavailable):  # it ends by itself
                    await self._store.release_lease(turn.lease)
            return turn

    async def _acquire(self) -> Lease:
        """The lease, taken or extended. Raises LeaseLost while it is another replica's."""
        lease = await self._store.acquire_lease(LEASE, self._holder, LEASE_LIFETIME, self._now())
        if lease is None:
            raise LeaseLost(LEASE)
        return lease

    async def _round(self, turn: Turn) -> bool:
        """Looks at every account that it is time to look at; whether any step was tried, so that more may be due."""
        tried, after = len(turn.results), None
        while turn.open and (page := await self._store.due_accounts(self._now() + turn.ahead, BATCH, after)):
            after = (page[-1][0], page[-1][1].id)
            await self._renew(turn)
            await self._page(page, turn)
        return len(turn.results) > tried

    async def _page(self, page: Sequence[tuple[datetime, Account]], turn: Turn) -> None:
        """Looks at some accounts, and says when to look again at those that no change of theirs has said it of."""
        places = asyncio.Semaphore(AT_ONCE)

        async def look(seen: datetime, account: Account) -> Look | None:
            async with places:
                return await self._look(account, seen, turn)

        ends = await asyncio.gather(*(look(*each) for each in page), return_exceptions=True)
        await self._store.look_later([end for end in ends if isinstance(end, Look)])
        for end in ends:
            if isinstance(end, BaseException):
                raise end

    async def _look(self, account: Account, seen: datetime, turn: Turn) -> Look | None:
        """Does the first thing that is due to an account and can be done: after it the account is another one. When to
        look again, where nothing was, and where something has to wait for somebody."""
        now = self._now()
        due = rotations.due(account, now, self._idle)
        blocked = False
        for step in due:
            if turn.failed(step):
                continue
            if not turn.take(step):
                return None
            try:
                error = await self._step(step, account, turn)
            except Overtaken:
                return None
            turn.ended(step, error)
            self._tell(step, account, error)
            if error is None or step.action is Action.DELIVER:
                return None
            blocked |= isinstance(error, (FailedPrecondition, Internal))
        if not blocked and (due or seen > now):
            return None
        later = rotations.look_time(account, now, self._idle)
        return Look(account.id, account.version, seen, self._retry_time(account, now) if blocked else later)

    def _retry_time(self, account: Account, now: datetime) -> datetime:
        """When to try again what is due and can't be done, but not after what comes next."""
        to_come = (step.time for step in rotations.steps(account, self._idle) if step.time > now)
        return min((now + RETRY, *to_come))

    async def _renew(self, turn: Turn) -> None:
        if turn.lease.expire_time - self._now() < LEASE_LIFETIME / 2:
            turn.lease = await self._acquire()

    async def _step(self, step: Step, account: Account, turn: Turn) -> IdentityError | None:
        try:
            await self._renew(turn)
            return await self._do(step, account, turn)
        except IdentityError as error:
            return error
        except (Overtaken, LeaseLost, StoreUnavailable):
            raise
        except Exception:
            self._logger.exception("rotation step failed", action=step.action.value, client_id=step.client_id)
            return Internal()

    async def _do(self, step: Step, account: Account, turn: Turn) -> IdentityError | None:
        if step.action is Action.DELIVER:
            return await self._deliver(step, account, turn)
        if step.action is Action.ROTATE:
            self._deliveries.sink_of(account)
            kept_beside(
                account.live_secrets(self._now())
            )  # refuses before a hash is computed for what would be refused
            async with self._hashing:
                made, secret = await new_secret(self._hasher, self._now, account)
            async with self._locked(step, turn) as change:
                await change.rotate(made, secret, self._deliveries)
            return None
        async with self._locked(step, turn) as change:
            await self._end(step, change)
        return None

    async def _end(self, step: Step, change: Change) -> None:
        ends: dict[Action, Callable[[], Awaitable[Account]]] = {
            Action.RETIRE: lambda: change.retired(step.secret_id, step.reason),
            Action.WARN: lambda: change.warned(step.secret_id),
            Action.EXPIRE: change.expired,
            Action.PURGE: change.purged,
        }
        await ends[step.action]()

    async def _deliver(self, step: Step, account: Account, turn: Turn) -> IdentityError | None:
        if account.rotation_policy.sink in turn.silent:
            raise Overtaken
        async with self._locked(step, turn) as change:
            account = change.account  # of the page that it was read with minutes may have passed
        pending = account.delivery
        assert pending is not None
        used, over = rotations.is_used(account, pending.secret_id), pending.give_up_time <= self._now()
        reason, again = "", timedelta(0)
        if account.rotation_policy.mode is not RotationMode.MANAGED:
            reason = "The policy is no longer managed."
        elif used and rotations.is_known_by_sink_only(account):
            pass  # the sink took it, though its answer was lost
        elif over:
            reason = "The old secret ended before the new one was delivered."
        elif (failure := await self._failure(account)) is not None:
            if not failure.permanent:
                return await self._postpone(step, account, failure, turn)
            reason, again = failure.message, FRESH_RETRY
        if reason and not used:  # what is used has reached its users, whatever became of the sink's answer
            return await self._abandon(step, turn, reason, again=again)
        try:
            async with self._locked(step, turn) as change:
                if change.account.rotation_policy != account.rotation_policy:
                    raise Overtaken  # it went to where it no longer belongs; the next look takes it to the right place
                await change.delivered()
        except Overtaken:
            await self._make_up_for(account.id, pending.secret_id, turn)
            raise
        return None

    async def _make_up_for(self, account_id: str, secret_id: str, turn: Turn) -> None:
        """The sink may have been given a secret that was ended in the same moment: another one is made at once."""
        async with self._store.unit() as unit:
            await unit.require_lease(turn.lease)
            account = await unit.account(account_id)
            if account is None or account.delivery or account.rotation_policy.mode is not RotationMode.MANAGED:
                return
            if all(secret.id != secret_id for secret in account.secrets):
                await Change(unit, account, self._now(), turn.actor).again()

    async def _postpone(self, step: Step, account: Account, failure: SinkFailed, turn: Turn) -> IdentityError:
        if isinstance(failure, SinkSilent):
            turn.silent.add(account.rotation_policy.sink)
        async with self._locked(step, turn) as change:
            await change.postponed(self._deliveries.after(failure, change.pending))
        return Unavailable(failure.message, reason="SINK_FAILED")

    async def _failure(self, account: Account) -> SinkFailed | None:
        try:
            await self._deliveries.attempt(account)
        except SinkFailed as failure:
            return failure
        return None

    async def _abandon(self, step: Step, turn: Turn, reason: str, *, again: timedelta = timedelta(0)) -> IdentityError:
        async with self._locked(step, turn) as change:
            if rotations.is_used(change.account, step.secret_id):
                raise Overtaken  # it has reached its users after all: the next look finds it delivered
            await change.abandoned(reason, again=again)
        return FailedPrecondition(reason, reason="DELIVERY_ABANDONED")

    @asynccontextmanager
    async def _locked(self, step: Step, turn: Turn) -> AsyncIterator[Change]:
        """The step's account, locked, if the step is still due to it. Raises Overtaken, LeaseLost."""
        async with self._store.unit() as unit:
            await unit.require_lease(turn.lease)
            account, now = await unit.account(step.account_id), self._now()
            if account is None or step.about not in [due.about for due in rotations.due(account, now, self._idle)]:
                raise Overtaken
            yield Change(unit, account, now, turn.actor)

    def _tell(self, step: Step, account: Account, error: IdentityError | None) -> None:
        """One line of the log and one count for each step; what somebody has to look at is a warning."""
        outcome = error.reason.lower() if error else "done"
        self._metrics.rotations.add(step.action.value, outcome)
        alarming = error is not None or step.action in (Action.WARN, Action.EXPIRE)
        log = self._logger.warning if alarming else self._logger.info
        log(
            "rotation step",
            action=step.action.value,
            outcome=outcome,
            client_id=step.client_id,
            secret_id=step.secret_id,
            mode=account.rotation_policy.mode.value,
            reason=error.message if error else step.reason,
        )


def busy() -> Unavailable:
    return Unavailable(
        "Another call, or another replica, does this now; try again.", reason="ROTATIONS_BUSY", retry_after=BUSY_RETRY
    )
