"""Leases and fences: one holder at a time, and a late one cannot write."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from artstore_grpc.errors import LeaseLost
from artstore_grpc.model import Lease
from artstore_grpc.store.sql import SqlStore
from tests.store.samples import NOW, account

TTL = timedelta(seconds=10)
LATER = NOW + TTL


async def taken(store: SqlStore, holder: str = "one", now: datetime = NOW) -> Lease:
    lease = await store.acquire_lease("job", holder, TTL, now)
    assert lease
    return lease


async def test_free_lease_is_taken(store: SqlStore) -> None:
    """The first to ask gets it, for the time asked for."""
    assert await taken(store) == Lease("job", "one", 1, LATER)


async def test_held_lease_is_refused(store: SqlStore) -> None:
    """Until it expires nobody else gets it."""
    await taken(store)
    assert await store.acquire_lease("job", "two", TTL, LATER - timedelta(microseconds=1)) is None


async def test_own_lease_is_extended(store: SqlStore) -> None:
    """Its holder extends it, and keeps the fence."""
    await taken(store)
    half = NOW + TTL / 2
    assert await taken(store, now=half) == Lease("job", "one", 1, half + TTL)


@pytest.mark.parametrize("holder", ["one", "two"])
async def test_expired_lease_passes_on_with_a_new_fence(store: SqlStore, holder: str) -> None:
    """From the instant it expires anybody may take it, its last holder too, and the fence grows."""
    await taken(store)
    assert await taken(store, holder, LATER) == Lease("job", holder, 2, LATER + TTL)


async def test_released_lease_is_free_with_a_new_fence(store: SqlStore) -> None:
    """A lease given back can be taken at once; its fence goes on growing."""
    await store.release_lease(await taken(store))
    assert (await taken(store, "two")).fence == 2


async def test_only_its_holder_releases_a_lease(store: SqlStore) -> None:
    """Giving back a lease that has passed on does nothing to the one who has it now."""
    old = await taken(store)
    await taken(store, "two", LATER)
    await store.release_lease(old)
    assert await store.acquire_lease("job", "three", TTL, LATER) is None


async def test_leases_are_apart_by_name(store: SqlStore) -> None:
    """Another job's lease is another lease."""
    await taken(store)
    other = await store.acquire_lease("other job", "two", TTL, NOW)
    assert other
    assert other.fence == 1


async def test_unit_under_a_held_lease_commits(store: SqlStore) -> None:
    """Who holds the lease writes."""
    lease, one = await taken(store), account()
    async with store.unit() as unit:
        await unit.require_lease(lease)
        await unit.add_account(one)
    assert await store.account(one.id) == one


async def test_unit_under_a_lost_lease_is_refused(store: SqlStore) -> None:
    """A holder that was too slow is fenced off, even if it catches the error; one without a lease too."""
    lease, one = await taken(store), account()
    await taken(store, "two", LATER)

    async def work(wrong: Lease) -> None:
        async with store.unit() as unit:
            await unit.add_account(one)
            with pytest.raises(LeaseLost):
                await unit.require_lease(wrong)

    for wrong in (lease, replace(lease, name="never taken")):
        with pytest.raises(LeaseLost):
            await work(wrong)
    assert await store.account(one.id) is None


async def test_lease_does_not_pass_on_during_a_unit(store: SqlStore) -> None:
    """While a unit that required it is open, the lease stays; the next holder waits for the unit's end."""
    lease = await taken(store)
    async with store.unit() as unit:
        await unit.require_lease(lease)
        waiting = asyncio.ensure_future(taken(store, "two", LATER))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
    assert (await waiting).fence == 2


async def test_one_of_many_gets_it(store: SqlStore) -> None:
    """Of many who ask at once exactly one gets it."""
    asked = (store.acquire_lease("job", f"holder {number}", TTL, NOW) for number in range(8))
    got = [lease for lease in await asyncio.gather(*asked) if lease]
    assert len(got) == 1
