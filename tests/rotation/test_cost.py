"""What a turn costs where nothing is due: indexed reads, however many accounts there are."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import event

from artstore_grpc.model import SECRET_LIFETIME, SECRET_WARNING
from artstore_grpc.store import census
from artstore_grpc.store.queries import due_page
from artstore_grpc.store.sql import SqlStore
from tests.rotation.stand import MINUTE, stand
from tests.store.plans import plan_of
from tests.store.samples import NOW, account, secret

ACCOUNTS = 2000


async def filled(store: SqlStore) -> None:
    async with store.unit() as unit:
        for _ in range(ACCOUNTS):
            await unit.add_account(account(secrets=(secret(expire_time=NOW + SECRET_LIFETIME),)))


async def test_what_is_due_is_read_by_an_index(store: SqlStore) -> None:
    """Of both databases the planner reads `due_time` by its index, and the secrets of what it finds by theirs."""
    await filled(store)
    for after in (None, (NOW, "x")):
        found = await plan_of(store, due_page(NOW, 200, after))
        assert "ix_accounts_due_time_id" in found
        assert "SCAN accounts" not in found, found
        assert "Seq Scan on accounts" not in found, found


async def test_the_census_reads_indexes(store: SqlStore) -> None:
    """What the gauges count is found by the mark of a warning, or among the accounts that it is time to look at: never
    by reading all accounts, or all secrets."""
    await filled(store)
    for query, index in (
        (census.expiring_warned(NOW), "ix_secrets_warned"),
        (census.expired_warned(NOW), "ix_secrets_warned"),
        (census.expiring_unwarned(NOW, NOW), "ix_accounts_due_time_id"),
        (census.expired_unwarned(NOW, NOW), "ix_accounts_due_time_id"),
    ):
        found = await plan_of(store, query)
        assert index in found, found
        for whole in ("SCAN accounts", "Seq Scan on accounts", "SCAN secrets", "Seq Scan on secrets"):
            assert whole not in found, found


async def test_an_idle_turn(store_url: str) -> None:
    """A turn in which nothing is due takes one read and writes nothing, and one in which accounts are looked at in
    vain, as after a change of a policy's rules, writes only when to look again."""
    async with stand(store_url) as at:
        await filled(at.parts.store)
        statements: list[str] = []
        event.listen(
            at.parts.store._database._engine.sync_engine,
            "before_cursor_execute",
            lambda *arguments: statements.append(arguments[2].split()[0].upper()),
        )
        at.time.time = NOW + timedelta(days=1)
        await at.parts.scheduled_rotation.turn()
        assert statements == ["SELECT"]
        at.time.time = NOW + SECRET_LIFETIME - SECRET_WARNING - MINUTE
        await at.parts.scheduled_rotation.turn()
        assert statements == ["SELECT"] * 2
