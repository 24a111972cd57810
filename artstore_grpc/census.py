"""What the metrics tell of the store as a whole: secrets about to expire, and new ones that wait to be delivered.

Counted by each process at a low rate, never when the metrics are asked for: the database has no more to do for who
asks often, and of processes that all say the same none has to be the one that is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from artstore_grpc.store.protocol import Store

INTERVAL = timedelta(seconds=30)
LOOK = timedelta(hours=1)
"""How long nobody may look at an account to which something is due that can't be done: scheduled_rotation.RETRY."""


class Census:
    """Numbers as they were last counted; None until then."""

    def __init__(self, store: Store, now: Callable[[], datetime]) -> None:
        self.secrets_expiring: int | None = None
        self.secrets_expired: int | None = None
        self.deliveries_pending: int | None = None
        self._store = store
        self._now = now

    async def run(self) -> None:
        """Counts, and tells all three at once. Raises StoreUnavailable, and then tells what it counted last."""
        now = self._now()
        expiring = await self._store.secrets_expiring(now, now + LOOK)
        expired = await self._store.secrets_expired(now, now + LOOK)
        pending = await self._store.deliveries_pending()
        self.secrets_expiring, self.secrets_expired, self.deliveries_pending = expiring, expired, pending
