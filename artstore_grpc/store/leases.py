"""Leases: one replica does a job at a time, and a fence lets the store refuse one that was late to notice its end.

A fence only ever grows, so that a unit that names an old one (`Unit.require_lease`) cannot commit. Time is the
caller's: replicas whose clocks differ by more than a ttl may both think that they hold a lease, and the fence settles
which of them writes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, case, or_, select, update

from artstore_grpc.model import Lease
from artstore_grpc.store import rows
from artstore_grpc.store.engine import Database
from artstore_grpc.store.queries import insert_into
from artstore_grpc.store.tables import leases

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""The expire time of a lease that was given back: its row stays, since its fence must not start again."""


async def acquire(database: Database, name: str, holder: str, ttl: timedelta, now: datetime) -> Lease | None:
    """As `Store.acquire_lease`: one statement, so that of two replicas exactly one gets it."""
    statement = insert_into(leases, database.dialect).values(name=name, holder=holder, fence=1, expire_time=now + ttl)
    own = and_(leases.c.holder == holder, leases.c.expire_time > now)
    taken = statement.on_conflict_do_update(
        index_elements=[leases.c.name],
        set_={
            "holder": holder,
            "expire_time": now + ttl,
            "fence": case((own, leases.c.fence), else_=leases.c.fence + 1),
        },
        where=or_(own, leases.c.expire_time <= now),
    )
    async with database.transaction() as transaction:
        if (await transaction.execute(taken)).rowcount != 1:
            return None
        return rows.lease((await transaction.execute(select(leases).where(leases.c.name == name))).one())


async def release(database: Database, lease: Lease) -> None:
    """As `Store.release_lease`; nothing when it has passed on."""
    same = and_(leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.fence == lease.fence)
    async with database.transaction() as transaction:
        await transaction.execute(update(leases).where(same).values(expire_time=LONG_AGO))
