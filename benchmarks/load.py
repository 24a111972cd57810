"""Load: how often and how fast operations are done, and how many failed. Knows nothing of what an operation is."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

Operation = Callable[[], Awaitable[None]]
"""Does its work once, over a connection of its own; raises when it failed."""


@dataclass
class Outcome:
    """What came of a load. Latencies and `seconds` are in seconds."""

    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def throughput(self) -> float:
        """Operations a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in ascending order; `share` is 0 to 1. Raises ValueError without any."""
    if not sorted_values:
        raise ValueError("no values")
    rank = max(1, -(-len(sorted_values) * round(share * 10_000) // 10_000))
    return sorted_values[rank - 1]


async def timed(operation: Operation, outcome: Outcome, due: float | None = None) -> None:
    """Does it once; `due` is when it ought to have begun, by the performance counter, if that was earlier."""
    started = time.perf_counter() if due is None else due
    try:
        await operation()
    except Exception as error:
        outcome.errors[f"{type(error).__name__}: {error}"[:200]] += 1
    else:
        outcome.latencies.append(time.perf_counter() - started)


async def closed(operations: Sequence[Operation], seconds: float, at_most: int = 0) -> Outcome:
    """Each operation again and again, the next one when the last has ended: as many in flight as there are operations.
    Ends after `seconds`, or when `at_most` were begun."""
    outcome = Outcome()
    begun = 0
    started = time.perf_counter()
    end = started + seconds

    async def again(operation: Operation) -> None:
        nonlocal begun
        while time.perf_counter() < end and (not at_most or begun < at_most):
            begun += 1
            await timed(operation, outcome)

    await asyncio.gather(*(again(operation) for operation in operations))
    outcome.seconds = time.perf_counter() - started
    return outcome


async def paced(operations: Sequence[Operation], seconds: float, rate: float) -> Outcome:
    """So many a second, spread evenly over the operations, whether or not earlier ones have ended: what waits in the
    server's queue is seen, not waited for (no coordinated omission). A call that this loop begins late counts from when
    it was due."""
    outcome = Outcome()
    started = time.perf_counter()
    pending: set[asyncio.Task[None]] = set()
    for number in range(int(seconds * rate)):
        due = started + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(timed(operations[number % len(operations)], outcome, due))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    outcome.seconds = time.perf_counter() - started
    return outcome
