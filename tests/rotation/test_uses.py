"""Which hosts use a secret: noted in bounded memory, written in batches, the latest kept, gone with the secret."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from artstore_grpc import usage
from artstore_grpc.changes import Target
from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.model import BY_HAND, SecretUse
from artstore_grpc.store import tables
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.store.used import MAX_USES
from artstore_grpc.usage import Usage
from tests.keys.stand import operator
from tests.rotation.stand import stand
from tests.store.samples import NOW, account, secret

SECOND = timedelta(seconds=1)


async def hosts(store: SqlStore, *ids: str) -> list[list[str]]:
    """The hosts of each account's first secret."""
    found = await store.shown(await store.accounts_by_id(ids))
    by_id = {one.id: [use.source for use in one.secrets[0].uses] for one in found}
    return [by_id[account_id] for account_id in ids]


async def test_hosts_are_shown(store_url: str) -> None:
    """Two hosts that use one secret are both shown, the later one first, with the time of each; to list accounts shows
    the same; what authenticates doesn't read them."""
    async with stand(store_url) as at:
        made = await at.account(BY_HAND)
        for source in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
            await at.one.authenticate(made.client_id, at.made[made.id], source)
            at.time.advance(SECOND)
        await at.turn()
        uses = (await at.get(made)).secrets[0].uses
        assert [(use.source, (at.time() - use.time) // SECOND) for use in uses] == [("10.0.0.1", 1), ("10.0.0.2", 2)]
        listed, _ = await at.parts.accounts.list(page_size=0, page_token="", filter="", show_deleted=False)
        assert listed[0].secrets[0].uses == uses
        caller = await at.one.authenticate(made.client_id, at.made[made.id])
        assert caller.account.secrets[0].uses == ()


async def test_the_latest_twenty(store: SqlStore) -> None:
    """Of a secret that a hundred hosts use the latest are kept, of another one all; an older use changes nothing."""
    busy, calm = account(secrets=(secret(),)), account(secrets=(secret(),))
    async with store.unit() as unit:
        await unit.add_account(busy)
        await unit.add_account(calm)
    many = [SecretUse(busy.secrets[0].id, NOW + n * SECOND, f"host {n}") for n in range(100)]
    await store.flush_uses([*many, SecretUse(calm.secrets[0].id, NOW, "only")])
    await store.flush_uses([SecretUse(busy.secrets[0].id, NOW - SECOND, "host 99")])
    latest = [f"host {n}" for n in range(99, 99 - MAX_USES, -1)]
    assert await hosts(store, busy.id, calm.id) == [latest, ["only"]]
    assert (await store.accounts_by_id([busy.id]))[0].secrets[0].last_used_source == "host 99"


async def test_gone_with_the_secret(store_url: str) -> None:
    """Uses of a secret that is gone leave with it, and a late flush of another replica brings none back."""
    async with stand(store_url) as at:
        made = await at.account(BY_HAND)
        await at.one.authenticate(made.client_id, at.made[made.id])
        await at.turn()
        store, used = at.parts.store, made.secrets[0].id
        assert await rows_of(store) == 1
        await at.parts.rotation.revoke_secret(Target(made.id), used, operator())
        await store.flush_uses([SecretUse(used, at.time(), "late")])
        assert await rows_of(store) == 0


async def rows_of(store: SqlStore) -> int:
    (row,) = await store._database.rows(select(func.count()).select_from(tables.secret_uses))
    return int(row[0])


@pytest.mark.timeout(120)
async def test_replicas_that_flush_at_once(store: SqlStore) -> None:
    """Eight flushes of the same secrets in any order, while the accounts change: nobody waits for ever, the latest of
    each host is kept."""
    accounts = [account(secrets=(secret(), secret(create_time=NOW - SECOND))) for _ in range(10)]
    async with store.unit() as unit:
        for one in accounts:
            await unit.add_account(one)
    secrets = [one.id for each in accounts for one in each.secrets]
    uses = [SecretUse(one, NOW + n * SECOND, f"host {n % 3}") for n in range(9) for one in secrets]

    async def change(id: str) -> None:
        async with store.unit() as unit:
            found = await unit.account(id)
            assert found
            await unit.save_account(found)

    flushes = [store.flush_uses(uses[::step]) for step in (1, -1) * 4]
    await asyncio.gather(*flushes, *(change(one.id) for one in accounts))
    assert await hosts(store, accounts[0].id) == [["host 2", "host 1", "host 0"]]


class Down:
    """A store that is down until it isn't."""

    def __init__(self) -> None:
        self.down = True
        self.written: list[SecretUse] = []

    async def flush_uses(self, uses: list[SecretUse]) -> None:
        if self.down:
            raise StoreUnavailable("down")
        self.written += uses


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hosts there are, and however long the store is down: so many are held, the latest, and the last use
    of every secret, also of one that was not used again."""
    monkeypatch.setattr(usage, "MAX_HOSTS", 50)
    store = Down()
    noted = Usage(store)  # type: ignore[arg-type]
    noted.note("once", NOW, "first")
    for turn in range(3):
        for n in range(200):
            noted.note("busy", NOW + (200 * turn + n + 1) * SECOND, f"{turn} host {n}")
            assert len(noted._uses) <= 52
        await noted.flush()
        assert len(noted._uses) <= 52
    store.down = False
    await noted.flush()
    latest = {use.secret_id: use.source for use in sorted(store.written, key=lambda use: use.time)}
    assert latest == {"once": "first", "busy": "2 host 199"}
    await noted.flush()
    assert len(store.written) <= 52
