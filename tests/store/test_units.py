"""Units, the ledger, revocations, replays and keys: every promise of the protocol, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from artstore_grpc.errors import Conflict
from artstore_grpc.ledger import GENESIS, verify
from artstore_grpc.model import KeyState
from artstore_grpc.records import EventKind
from artstore_grpc.store.sql import SqlStore
from tests.store.samples import DAY, NOW, account, event, replay, revocation, signing_key


async def test_events_are_written_with_the_commit(store: SqlStore) -> None:
    """A unit's events become rows in their order, `sequence` names the last, and the chain verifies."""
    async with store.unit() as unit:
        unit.record(event("one", detail={"b": [1, None], "a": "\x00ü"}))
        unit.record(event("two", kind=EventKind.ACCOUNT_DELETED))
        assert unit.sequence == 0
    rows = await store.ledger(0, 10)
    assert [(row.sequence, row.subject) for row in rows] == [(1, "one"), (2, "two")]
    assert rows[0].detail == '{"a":"\\u0000\\u00fc","b":[1,null]}'
    assert (rows[0].time, rows[1].kind, unit.sequence) == (NOW, "account.deleted", 2)
    assert await store.head() == verify(rows) == (2, rows[1].hash)


async def test_unit_without_events_leaves_the_ledger(store: SqlStore) -> None:
    """A unit that records nothing writes no row and has no sequence."""
    async with store.unit() as unit:
        await unit.add_account(account())
    assert unit.sequence == 0
    assert await store.head() == GENESIS
    assert await store.ledger(0, 10) == []


async def test_chain_goes_on_from_unit_to_unit(store: SqlStore) -> None:
    """Each unit's first row follows from the last row of the unit before."""
    for number in range(5):
        async with store.unit() as unit:
            unit.record(event(str(number)))
        assert unit.sequence == number + 1
    assert verify(await store.ledger(0, 10)) == await store.head()


async def test_ledger_pages(store: SqlStore) -> None:
    """`ledger` gives at most `limit` rows after a sequence, in order; none after the last."""
    async with store.unit() as unit:
        for number in range(5):
            unit.record(event(str(number)))
    assert [row.sequence for row in await store.ledger(1, 3)] == [2, 3, 4]
    assert await store.ledger(5, 3) == []


async def test_exception_rolls_everything_back(store: SqlStore) -> None:
    """Nothing of a unit is kept if its body raises: neither its writes nor its events, and the error is unchanged."""
    one = account()

    async def work() -> None:
        async with store.unit() as unit:
            await unit.add_account(one)
            unit.record(event())
            raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await work()
    assert await store.account(one.id) is None
    assert await store.head() == GENESIS


async def test_unwritable_event_rolls_everything_back(store: SqlStore) -> None:
    """A change whose ledger row cannot be written does not happen."""
    one = account()

    async def work() -> None:
        async with store.unit() as unit:
            await unit.add_account(one)
            unit.record(event(detail={"x": object()}))

    with pytest.raises(TypeError):
        await work()
    assert await store.account(one.id) is None
    assert await store.ledger(0, 1) == []


async def test_uncommitted_writes_are_invisible(store: SqlStore) -> None:
    """A read outside a unit sees committed data only."""
    one = account()
    async with store.unit() as unit:
        await unit.add_account(one)
        assert await store.account(one.id) is None
    assert await store.account(one.id) == one


async def test_revocation_comes_back_until_it_expires(store: SqlStore) -> None:
    """Live revocations are listed; one that has expired by now is not, though it is found until it is purged."""
    live, dead = revocation(), revocation(expire_time=NOW)
    async with store.unit() as unit:
        assert await unit.add_revocation(live)
        assert await unit.add_revocation(dead)
    assert await store.revocations(NOW) == [live]
    assert await store.revocation(dead.jti) == dead
    assert await store.revocation("unknown") is None


async def test_second_revocation_is_false(store: SqlStore) -> None:
    """Revoking a `jti` again says False, changes nothing, and lets the unit go on."""
    first = revocation()
    async with store.unit() as unit:
        await unit.add_revocation(first)
    async with store.unit() as unit:
        assert not await unit.add_revocation(revocation(jti=first.jti, expire_time=NOW + 2 * DAY))
        unit.record(event())
    assert await store.revocation(first.jti) == first
    assert unit.sequence == 1


async def test_replay_comes_back_and_is_voided_by_account(store: SqlStore) -> None:
    """A stored answer is found by its key; voiding forgets what is sealed, of that account only, and keeps the key."""
    one, two = replay(account_id="one"), replay(account_id="two")
    async with store.unit() as unit:
        await unit.add_replay(one)
        await unit.add_replay(two)
        assert await unit.replay(one.key) == one
        await unit.void_replays("one")
    assert await store.replay(one.key) == replay(key=one.key, account_id="one", sealed=None)
    assert await store.replay(two.key) == two
    assert await store.replay(b"unknown") is None


async def test_second_replay_conflicts(store: SqlStore) -> None:
    """A key is taken once; the unit that comes second keeps nothing, even if it catches the Conflict."""
    first, other = replay(), account()
    async with store.unit() as unit:
        await unit.add_replay(first)

    async def work() -> None:
        async with store.unit() as unit:
            await unit.add_account(other)
            with pytest.raises(Conflict):
                await unit.add_replay(replay(key=first.key, digest=b"other"))

    with pytest.raises(Conflict) as conflict:
        await work()
    assert conflict.value.constraint == "pk_replays"
    assert await store.account(other.id) is None
    assert await store.replay(first.key) == first


async def test_signing_keys_are_the_oldest_first(store: SqlStore) -> None:
    """Keys come back as they were, the oldest first, in a unit and outside."""
    new, old = signing_key(activate_time=NOW), signing_key(create_time=NOW - DAY)
    async with store.unit() as unit:
        assert await unit.signing_keys() == []
        await unit.add_signing_key(new)
        await unit.add_signing_key(old)
        assert await unit.signing_keys() == [old, new]
    assert await store.signing_keys() == [old, new]


async def test_a_signing_key_changes_and_goes(store: SqlStore) -> None:
    """A unit writes a key's state, its times and its tokens' life, and nothing else of it; it deletes a key, or one
    that isn't there. To write one that isn't stored is a defect, which rolls back."""
    key, other = signing_key(), signing_key(create_time=NOW - DAY)
    async with store.unit() as unit:
        await unit.add_signing_key(key)
        await unit.add_signing_key(other)
    changed = replace(key, state=KeyState.RETIRED, activate_time=NOW, retire_time=NOW + DAY, token_lifetime_seconds=7)
    async with store.unit() as unit:
        await unit.save_signing_key(replace(changed, sealed=b"another", algorithm="ES256"))
        await unit.delete_signing_key(other.kid)
        await unit.delete_signing_key("no such key")
    assert await store.signing_keys() == [changed]
    with pytest.raises(LookupError):  # noqa: PT012 - the whole unit is what fails
        async with store.unit() as unit:
            await unit.delete_signing_key(changed.kid)
            await unit.save_signing_key(other)
    assert await store.signing_keys() == [changed]


async def test_units_that_read_the_signing_keys_take_turns(store: SqlStore) -> None:
    """Of many units that each add a key only where there is none, one does: also where there is no row to lock."""

    async def add_the_first() -> None:
        async with store.unit() as unit:
            if not await unit.signing_keys():
                await asyncio.sleep(0)
                await unit.add_signing_key(signing_key())

    await asyncio.gather(*(add_the_first() for _ in range(8)))
    assert len(await store.signing_keys()) == 1


async def test_second_key_of_a_kid_conflicts(store: SqlStore) -> None:
    """A key id is taken once."""
    first = signing_key()
    async with store.unit() as unit:
        await unit.add_signing_key(first)
    with pytest.raises(Conflict) as conflict:
        async with store.unit() as unit:
            await unit.add_signing_key(signing_key(kid=first.kid))
    assert conflict.value.constraint == "pk_signing_keys"


async def test_purge_expired_takes_what_is_due(store: SqlStore) -> None:
    """Expired revocations and old replays go, up to the limit of each; live and young ones stay."""
    live, young = revocation(), replay()
    async with store.unit() as unit:
        await unit.add_revocation(live)
        await unit.add_replay(young)
        for number in range(3):
            await unit.add_revocation(revocation(expire_time=NOW - timedelta(microseconds=number)))
            await unit.add_replay(replay(create_time=NOW - timedelta(microseconds=number + 1)))
    assert await store.purge_expired(NOW, NOW, 2) == 4
    assert await store.purge_expired(NOW, NOW, 2) == 2
    assert await store.purge_expired(NOW, NOW, 2) == 0
    assert await store.revocation(live.jti) == live
    assert await store.replay(young.key) == young


async def test_ping_answers(store: SqlStore) -> None:
    """A database that is there answers a ping."""
    await store.ping()
