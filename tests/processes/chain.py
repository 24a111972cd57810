"""What the database itself says: that the ledger's chain holds, and how many rows of which kind it has."""

from __future__ import annotations

import asyncio
from collections import Counter

from artstore_grpc import ledger
from artstore_grpc.store.sql import SqlStore

PAGE = 1000


def verified(database_url: str) -> Counter[str]:
    """How many rows of each kind the ledger holds; fails when its chain does not hold or doesn't end at its head."""
    return asyncio.run(_verified(database_url))


async def _verified(database_url: str) -> Counter[str]:
    store = SqlStore(database_url)
    try:
        kinds: Counter[str] = Counter()
        head = ledger.GENESIS
        told = await store.head()  # before the rows each time: what is written meanwhile is among them
        while rows := await store.ledger(head[0], PAGE):
            head = ledger.verify(rows, head)
            kinds.update(row.kind for row in rows)
            told = await store.head()
        assert head == told
        return kinds
    finally:
        await store.close()
