"""What is asked of large tables is read by an index, on both databases."""

from __future__ import annotations

from artstore_grpc.model import SECRET_LIFETIME
from artstore_grpc.store.queries import IMPORTED_COST
from artstore_grpc.store.sql import SqlStore
from tests.store.plans import plan_of
from tests.store.samples import NOW, account, secret

ACCOUNTS = 1000


async def test_imported_secrets_are_found_by_their_index(store: SqlStore) -> None:
    """Whether there are any is asked at each start; the index holds these alone, however many others there are."""
    async with store.unit() as unit:
        for _ in range(ACCOUNTS):
            await unit.add_account(account(secrets=(secret(expire_time=NOW + SECRET_LIFETIME),)))
    found = await plan_of(store, IMPORTED_COST.params(now=NOW))
    assert "ix_secrets_imported" in found, found
