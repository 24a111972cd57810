"""What the supervisor counts itself: workers and their deaths, and what it takes of the machine."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.registry import Collector

from artstore_grpc.telemetry.catalogue import BY_NAME
from artstore_grpc.telemetry.metrics import numbers

WORKERS, RESTARTS = "artstore_workers", "artstore_worker_restarts_total"


class Tally(Collector):
    """Plain numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.ready = 0
        self.restarts = 0
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        yield from numbers(BY_NAME[WORKERS], self.ready)
        yield from numbers(BY_NAME[RESTARTS], self.restarts)
