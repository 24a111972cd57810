"""What a test has go wrong: an authority that is down, slow, or fails the next calls of a method; and how often it was
called."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from datetime import timedelta

import grpc
from artstore.identity.errors import IdentityError
from artstore.identity.testing.refusals import planned

Fault = IdentityError | grpc.StatusCode
"""The service's own refusal, or a bare code as proxies and gRPC itself give."""


class Faults:
    """The faults of one authority; asked at the start of every call."""

    def __init__(self, methods: Iterable[str], changed: threading.Condition) -> None:
        self.calls: Counter[str] = Counter()
        self.down = False
        self.delay = timedelta(0)
        self.stopped = False
        self._methods = frozenset(methods)
        self._changed = changed
        self._planned: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def plan(self, method: str, error: Fault | type[IdentityError], times: int) -> None:
        """Has the next calls of a method fail. Raises ValueError for a method that the API doesn't have, and for OK."""
        if method not in self._methods:
            raise ValueError(f"The API has no method {method}: it is named as in IssueToken.")
        if error is grpc.StatusCode.OK:
            raise ValueError("OK is no failure.")
        fault = error if isinstance(error, grpc.StatusCode) else planned(error)
        with self._changed:
            self._planned[method].extend([fault] * times)

    def met(self, method: str) -> Fault | None:
        """Counts a call, has it wait, and says what it fails with, if it does. The lock is held by the caller, and
        given up while it waits."""
        self.calls[method] += 1
        if self.delay > timedelta(0):
            self._changed.wait_for(lambda: self.stopped, self.delay.total_seconds())
        if self.stopped or self.down:
            return grpc.StatusCode.UNAVAILABLE
        plans = self._planned[method]
        return plans.popleft() if plans else None
