"""When and from where secrets were last used: coalesced in memory, flushed to the store every few seconds.

Nothing is written per token (DESIGN §4). What a crash loses is at most one flush interval of last uses.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.model import SecretUse
from artstore_grpc.store.protocol import Store

FLUSH_INTERVAL = timedelta(seconds=5)


class Usage:
    """The last use of each secret since the last flush."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uses: dict[str, tuple[datetime, str]] = {}

    def note(self, secret_id: str, time: datetime, source: str) -> None:
        self._uses[secret_id] = time, source

    async def flush(self) -> None:
        """Writes what was noted; keeps it for the next flush when the store is down."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self._store.flush_uses([SecretUse(secret_id, *use) for secret_id, use in uses.items()])
        except BaseException as failure:  # a cancelled caller must not lose what others did
            self._uses = uses | self._uses
            if not isinstance(failure, StoreUnavailable):
                raise
