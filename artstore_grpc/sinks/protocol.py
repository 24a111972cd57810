"""What a sink is: a place that a new secret is delivered to, and how a delivery fails.

When to deliver, how often to try again and what becomes of the old secret is the caller's to decide; a sink makes one
attempt, and says whether another may help. Nothing here logs: a sink tells its caller, in one sentence without secrets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from artstore_grpc.errors import InvalidRequest, invalid

DESTINATION = "rotation_policy.destination"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A new secret and whose it is. `destination` is a place within the sink; empty: after the `client_id`."""

    account_id: str
    client_id: str
    client_secret: str = field(repr=False)
    secret_id: str
    secret_expire_time: datetime
    issuer: str
    destination: str = ""


class SinkFailed(Exception):
    """A delivery that did not come to pass, or that nobody confirmed.

    `message` is one sentence without secrets. `retry_after` is what the place asked for, None where it asked for
    nothing. `permanent`: no retry helps before somebody has changed the settings, the policy or the place.
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None, permanent: bool = False) -> None:
        self.message = message
        self.retry_after = retry_after
        self.permanent = permanent
        super().__init__(message)


class Sink(Protocol):
    """A place of one kind, as the sinks file describes it."""

    async def deliver(self, delivery: Delivery) -> None:
        """Has the secret at its destination when it returns, durably as far as the place can say. The same delivery may
        come again, after a crash or an answer that was lost: the place ends up the same. Raises SinkFailed."""

    def check(self, destination: str) -> None:
        """Raises InvalidRequest for a destination that this sink can't have; the empty one is the default."""

    async def close(self) -> None:
        """Closes what it holds open."""


def refused(description: str) -> InvalidRequest:
    """The error of a destination; the description goes on after the field's name."""
    return invalid(DESTINATION, description)
