"""Places for what lasts: streams, long answers. So many at once, and a fourth of them for one holder."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from artstore_grpc.errors import BUSY_RETRY, Overloaded

SHARE = 4
"""What one holder may have is a fourth: who holds all of its own (a fleet of one service) keeps no other out."""


class Places:
    """`most` places, of which none is waited for."""

    def __init__(self, most: int, *, reason: str) -> None:
        self._most = most
        self._reason = reason
        self._held: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self._held.total()

    @contextlib.contextmanager
    def held(self, holder: str) -> Iterator[None]:
        """A place. Raises Overloaded where none is left, or none for this holder."""
        if self.count >= self._most or self._held[holder] >= max(1, self._most // SHARE):
            raise Overloaded(reason=self._reason, retry_after=BUSY_RETRY)
        self._held[holder] += 1
        try:
            yield
        finally:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
