"""Accounts and secrets, written and read one by one: every promise of the protocol, on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from artstore_grpc.errors import Conflict
from artstore_grpc.model import Comparison, Role, SecretUse
from artstore_grpc.store.sql import SqlStore
from tests.store.samples import DAY, NOW, account, add, names, replay, save, secret


async def test_account_comes_back_as_it_was(store: SqlStore) -> None:
    """Every field survives, microseconds, non-ASCII text, empty and full tuples included."""
    full = account(
        name="größe ☃ \U0001f600",
        description="line\nline",
        role=Role.ADMIN,
        rate_limit=1_000_000,
        scopes=("storage.read",),
        audiences=("a b", "https://x/ü"),
        served_audiences=("x",),
        introspection_only=True,
        is_system=True,
        suspended=True,
        delete_time=NOW,
        version=7,
        epoch=3,
        secrets=(
            secret(tag=bytes(range(32)), last_used_time=NOW, last_used_source="::1"),
            secret(create_time=NOW - DAY),
        ),
    )
    plain = account()
    await add(store, full, plain)
    assert await store.account(full.id) == full
    assert await store.account_by_client_id(plain.client_id) == plain
    for found in (
        await store.accounts_by_id([plain.id, "nobody", full.id]),
        await store.accounts_by_client_id([full.client_id, plain.client_id, "nobody"]),
    ):
        assert sorted(found, key=lambda one: one.name) == sorted([plain, full], key=lambda one: one.name)
    assert await store.accounts_by_id([]) == []


async def test_unknown_account_is_none(store: SqlStore) -> None:
    """An id or client_id that nobody has finds nothing, in a unit and outside."""
    await add(store, account())
    assert await store.account("nobody") is None
    assert await store.account_by_client_id("nobody") is None
    async with store.unit() as unit:
        assert await unit.account("nobody") is None
        assert await unit.account_by_client_id("nobody") is None


async def test_unit_sees_its_own_writes(store: SqlStore) -> None:
    """A unit reads what it wrote, by id and by client_id."""
    one = account(secrets=(secret(),))
    async with store.unit() as unit:
        await unit.add_account(one)
        assert await unit.account(one.id) == one
        assert await unit.account_by_client_id(one.client_id) == one


async def test_times_of_any_zone_are_kept_as_utc(store: SqlStore) -> None:
    """A time with another offset is the same instant when it comes back, in UTC."""
    there = NOW.astimezone(timezone(timedelta(hours=-7)))
    one = account(create_time=there)
    await add(store, one)
    found = await store.account(one.id)
    assert found
    assert found.create_time == NOW
    assert found.create_time.utcoffset() == timedelta(0)


async def test_naive_time_is_refused(store: SqlStore) -> None:
    """A time without a zone is not stored."""
    with pytest.raises(Exception, match="aware"):
        await add(store, account(create_time=NOW.replace(tzinfo=None)))


async def test_secrets_are_the_newest_first(store: SqlStore) -> None:
    """Secrets come in the order of their making, the newest first, whatever the order they were added in."""
    old, new = secret(create_time=NOW - DAY), secret()
    one = account(secrets=(old, new))
    await add(store, one)
    found = await store.account(one.id)
    assert found
    assert found.secrets == (new, old)


@pytest.mark.parametrize(
    ("field", "constraint"),
    [("name", "uq_accounts_name"), ("client_id", "uq_accounts_client_id"), ("id", "pk_accounts")],
)
async def test_taken_values_conflict(store: SqlStore, field: str, constraint: str) -> None:
    """A second account of the same name, client_id or id is refused by the constraint's name, and nothing is kept."""
    first = account()
    await add(store, first)
    second = account(**{field: getattr(first, field)})
    with pytest.raises(Conflict) as conflict:
        await add(store, account(name="with it"), second)
    assert conflict.value.constraint == constraint
    assert await names(store) == [first.name]


async def test_taken_secret_id_conflicts(store: SqlStore) -> None:
    """Two secrets cannot have one id, even of two accounts."""
    same = secret()
    await add(store, account(secrets=(same,)))
    with pytest.raises(Conflict) as conflict:
        await add(store, account(secrets=(same,)))
    assert conflict.value.constraint == "pk_secrets"


async def test_name_is_free_after_purge_only(store: SqlStore) -> None:
    """A deleted account keeps its name; a purged one gives it back."""
    one = account(delete_time=NOW)
    await add(store, one)
    with pytest.raises(Conflict):
        await add(store, account(name=one.name))
    async with store.unit() as unit:
        await unit.purge_account(one.id)
    await add(store, account(name=one.name))


async def test_renaming_to_a_taken_name_conflicts(store: SqlStore) -> None:
    """save_account refuses a taken name; to keep one's own is fine."""
    one, two = account(), account()
    await add(store, one, two)
    await save(store, replace(two, description="the same name"))
    with pytest.raises(Conflict) as conflict:
        await save(store, replace(two, name=one.name))
    assert conflict.value.constraint == "uq_accounts_name"


async def test_caught_conflict_still_rolls_back(store: SqlStore) -> None:
    """A body that swallows a Conflict does not commit half of a unit: leaving the unit raises it again."""
    first = account()
    await add(store, first)
    other = account()

    async def work() -> None:
        async with store.unit() as unit:
            await unit.add_account(other)
            with pytest.raises(Conflict):
                await unit.add_account(account(name=first.name))

    with pytest.raises(Conflict):
        await work()
    assert await store.account(other.id) is None


async def test_save_writes_columns_and_the_change_of_secrets(store: SqlStore) -> None:
    """save_account deletes secrets that are gone, adds new ones, moves expiry, and leaves tags and uses as stored."""
    gone, kept = secret(create_time=NOW - 2 * DAY), secret(create_time=NOW - DAY)
    one = account(secrets=(kept, gone))
    await add(store, one)
    await store.set_tag(kept.id, b"t" * 32)
    await store.flush_uses([SecretUse(kept.id, NOW, "10.0.0.1")])
    new, moved = secret(), replace(kept, expire_time=NOW + DAY, hash="ignored")
    await save(store, replace(one, name="renamed", suspended=True, version=2, epoch=1, secrets=(new, moved)))
    stored = replace(kept, expire_time=NOW + DAY, tag=b"t" * 32, last_used_time=NOW, last_used_source="10.0.0.1")
    expected = replace(one, name="renamed", suspended=True, version=2, epoch=1, secrets=(new, stored))
    assert await store.account(one.id) == expected


async def test_save_without_secrets_removes_all(store: SqlStore) -> None:
    """An account may be left without any secret, and gets the state of one."""
    one = account(secrets=(secret(expire_time=NOW - DAY),))
    await add(store, one)
    await save(store, replace(one, secrets=()))
    assert await store.account(one.id) == replace(one, secrets=())
    assert await names(store, Comparison("state", "=", "active")) == [one.name]


async def test_saving_an_unknown_account_is_a_defect(store: SqlStore) -> None:
    """save_account does not insert."""
    with pytest.raises(LookupError):
        async with store.unit() as unit:
            await unit.save_account(account())


async def test_purge_removes_secrets_and_replays_of_one_account(store: SqlStore) -> None:
    """A purge takes what belongs to the account, and nothing of another."""
    one, two = account(secrets=(secret(),)), account(secrets=(secret(),))
    first, second = replay(account_id=one.id), replay(account_id=two.id)
    await add(store, one, two)
    async with store.unit() as unit:
        await unit.add_replay(first)
        await unit.add_replay(second)
        await unit.purge_account(one.id)
    assert await store.account(one.id) is None
    assert await store.replay(first.key) is None
    assert await store.account(two.id) == two
    assert await store.replay(second.key) == second


async def test_purgeable_accounts(store: SqlStore) -> None:
    """Only accounts deleted before the time are due, the longest deleted first, and no more than asked for."""
    old, older, young = (account(delete_time=NOW - days * DAY) for days in (31, 32, 30))
    await add(store, old, older, young, account())
    assert await store.purgeable_accounts(NOW - 30 * DAY, 10) == [older.id, old.id]
    assert await store.purgeable_accounts(NOW - 30 * DAY, 1) == [older.id]


async def test_system_account_exists(store: SqlStore) -> None:
    """An installation is bootstrapped by its first system account, not by any account."""
    await add(store, account())
    async with store.unit() as unit:
        assert not await unit.system_account_exists()
        await unit.add_account(account(is_system=True))
        assert await unit.system_account_exists()


async def test_tag_of_an_unknown_secret_is_nothing(store: SqlStore) -> None:
    """A tag or a use of a secret that is gone changes nothing and fails nothing."""
    one = account(secrets=(secret(),))
    await add(store, one)
    await store.set_tag("gone", b"t" * 32)
    await store.flush_uses([SecretUse("gone", NOW, "x")])
    await store.flush_uses([])
    assert await store.account(one.id) == one


async def test_uses_only_go_forward(store: SqlStore) -> None:
    """The newest use of a secret is kept, in a batch and between batches, and no ledger row is written."""
    used, unused = secret(), secret(create_time=NOW - DAY)
    one = account(secrets=(used, unused))
    await add(store, one)
    newest = SecretUse(used.id, NOW + DAY, "new")
    await store.flush_uses([SecretUse(used.id, NOW, "old"), newest, SecretUse(used.id, NOW - DAY, "older")])
    await store.flush_uses([SecretUse(used.id, NOW, "late")])
    expected = replace(used, last_used_time=NOW + DAY, last_used_source="new")
    assert await store.account(one.id) == replace(one, secrets=(expected, unused))
    assert await store.head() == (0, bytes(32))


# Lists


async def test_many_accounts_at_once(store: SqlStore) -> None:
    """They come back as they were, with their secrets; none is nothing to do."""
    many = [account(secrets=(secret(imported=True), secret(create_time=NOW - DAY))[: n % 3]) for n in range(7)]
    async with store.unit() as unit:
        await unit.add_accounts(many)
        await unit.add_accounts([])
    for one in many:
        assert await store.account(one.id) == one


async def test_rivals(store: SqlStore) -> None:
    """Whoever has one of the client_ids or names, or an id that is one of the client_ids, deleted ones too."""
    by_client_id, by_name, by_id, deleted, other = account(), account(), account(), account(delete_time=NOW), account()
    await add(store, by_client_id, by_name, by_id, deleted, other)
    asked = [by_client_id.client_id, by_id.id, deleted.client_id, "nobody"]
    async with store.unit() as unit:
        found = await unit.rivals(asked, [by_name.name, "no name"])
        assert await unit.rivals([], []) == []
    assert {one.id for one in found} == {by_client_id.id, by_name.id, by_id.id, deleted.id}


async def test_imported_cost(store: SqlStore) -> None:
    """The highest cost among imported secrets that have not expired; no other secret's counts."""
    assert await store.imported_cost(NOW) == 0
    costs = {"09": {"imported": True}, "10": {"imported": True}, "12": {"imported": True, "expire_time": NOW}, "14": {}}
    await add(store, account(secrets=tuple(secret(hash=f"$2b${cost}$x", **more) for cost, more in costs.items())))
    assert await store.imported_cost(NOW) == 10
    assert await store.imported_cost(NOW + 90 * DAY) == 0
