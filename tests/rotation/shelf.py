"""A sink in memory: what a client of the tests finds its secret in, and what fails when a test says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from artstore_grpc.errors import invalid
from artstore_grpc.sinks.protocol import DESTINATION, Delivery


@dataclass
class Shelf:
    """Keeps the last delivery of each destination; raises what is in `failures` first, and then nothing more."""

    held: dict[str, Delivery] = field(default_factory=dict)
    asked: list[Delivery] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] | None = None
    """What happens while a delivery is under way."""

    async def deliver(self, delivery: Delivery) -> None:
        self.asked.append(delivery)
        if self.failures:
            raise self.failures.pop(0)
        self.held[delivery.destination or delivery.client_id] = delivery
        if self.meanwhile is not None:
            await self.meanwhile()

    def check(self, destination: str) -> None:
        if destination.startswith("/"):
            raise invalid(DESTINATION, "must be a name")

    async def close(self) -> None:
        pass
