"""What happens by itself: a loop that survives its work's failures, and the purge of what has expired.

A job that must run once in an installation takes a lease in the store; the others are each process's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from artstore_grpc.descriptions import described
from artstore_grpc.errors import LeaseLost, StoreUnavailable
from artstore_grpc.key_policy import LEEWAY
from artstore_grpc.model import DELETED_RETENTION, Account, Lease
from artstore_grpc.records import SYSTEM, Actor, Event, EventKind
from artstore_grpc.replays import KNOWN_FOR
from artstore_grpc.store.protocol import Store, Unit
from artstore_grpc.telemetry.logs import Logger

PURGE_INTERVAL = timedelta(minutes=1)
PURGE_LEASE = "purge"
BATCH = 1000


async def forever(name: str, interval: timedelta, work: Callable[[], Awaitable[None]], logger: Logger) -> None:
    """Runs the work again and again until cancelled. A dead database is waited out, a defect is logged."""
    while True:
        try:
            await work()
        except (StoreUnavailable, LeaseLost):
            pass  # the next turn finds it healed, or leaves it to the new holder
        except Exception:
            logger.exception("job failed", job=name)
        await asyncio.sleep(interval.total_seconds())


class Purge:
    """Deletes, in batches, what is past its time: revocations, used assertions, answers to retries, accounts that were
    deleted 30 days ago."""

    def __init__(self, store: Store, holder: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._holder = holder
        self._now = now

    async def run(self) -> None:
        """One turn, if no other replica is at it."""
        now = self._now()
        lease = await self._store.acquire_lease(PURGE_LEASE, self._holder, 2 * PURGE_INTERVAL, now)
        if lease is None:
            return
        purged = BATCH
        while purged >= BATCH:
            purged = await self._store.purge_expired(now - LEEWAY, now - KNOWN_FOR, BATCH)
        for account_id in await self._store.purgeable_accounts(now - DELETED_RETENTION, BATCH):
            await self._purge_account(account_id, lease)

    async def _purge_account(self, id: str, lease: Lease) -> None:
        now = self._now()
        async with self._store.unit() as unit:
            await unit.require_lease(lease)
            account = await unit.account(id)
            if account is not None and account.purge_time is not None and account.purge_time <= now:
                await purge(unit, account, now)


async def purge(unit: Unit, account: Account, now: datetime, actor: Actor = SYSTEM) -> None:
    """Deletes an account for good, and says so."""
    await unit.purge_account(account.id)
    detail = {"client_id": account.client_id, "before": described(account)}
    unit.record(Event(now, actor, EventKind.ACCOUNT_PURGED, account.id, detail))
