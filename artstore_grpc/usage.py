"""When and from where secrets were last used: coalesced in memory, flushed to the store every few seconds.

Nothing is written per token (docs/architecture.md). What a crash loses is at most one flush interval of last uses. The
last use of a secret is always noted; of the hosts that it came from only so many in one interval, however many there
are.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.model import SecretUse
from artstore_grpc.store.protocol import Store

FLUSH_INTERVAL = timedelta(seconds=5)
MAX_HOSTS = 20_000
"""Pairs of secret and host that are held until the next flush; about 300 bytes each."""

Uses = dict[tuple[str, str], datetime]
"""When each host last used each secret."""


class Usage:
    """The last use of each secret, and of each by each host, since the last flush."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._latest: dict[str, str] = {}
        """The host that used each secret last."""
        self._uses: Uses = {}

    def note(self, secret_id: str, time: datetime, source: str) -> None:
        use = (secret_id, source)
        if len(self._uses) >= MAX_HOSTS and use not in self._uses:
            self._uses.pop((secret_id, self._latest.get(secret_id, "")), None)
        self._latest[secret_id] = source
        self._uses[use] = time

    async def flush(self) -> None:
        """Writes what was noted; keeps it for the next flush when the store is down."""
        uses, self._uses = self._uses, {}
        latest, self._latest = self._latest, {}
        if not uses:
            return
        try:
            await self._store.flush_uses(
                [SecretUse(secret_id, time, source) for (secret_id, source), time in uses.items()]
            )
        except BaseException as failure:  # a cancelled caller must not lose what others did
            self._latest = latest | self._latest
            self._uses = self._fitting(uses | self._uses)
            if not isinstance(failure, StoreUnavailable):
                raise

    def _fitting(self, uses: Uses) -> Uses:
        """The latest uses, and the last one of each secret: an outage may last, and hosts may be many."""
        if len(uses) <= MAX_HOSTS:
            return uses
        last = {use: uses[use] for use in self._latest.items() if use in uses}
        return dict(ordered(uses)[-MAX_HOSTS:]) | last


def ordered(uses: Uses) -> list[tuple[tuple[str, str], datetime]]:
    """The uses in the order of their times."""
    return sorted(uses.items(), key=lambda use: use[1])
