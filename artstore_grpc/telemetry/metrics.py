"""Prometheus metrics of one process. No label holds anything that a caller can choose."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from artstore_grpc.errors import CannotBind
from artstore_grpc.settings import Address

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a warm token takes under 1 ms, bcrypt a quarter of a second."""


class Metrics:
    """What is counted, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter(
            "artstore_calls", "Calls by method, door and gRPC code.", ["method", "door", "code"], registry=self.registry
        )
        self.latency = Histogram(
            "artstore_call_duration_seconds",
            "Time in the service, by method.",
            ["method"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.tokens = Counter("artstore_tokens_issued", "Tokens issued, by mode.", ["mode"], registry=self.registry)
        self.denials = Counter(
            "artstore_denials", "Refused authentications, by kind.", ["kind"], registry=self.registry
        )

        self._finished: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}

    def finished(self, method: str, door: str, code: str, seconds: float) -> None:
        """Counts a call. `method` and `code` are names that we have given, never what a caller sent."""
        kept = self._finished.get((method, door, code))
        if kept is None:  # to look a child up by its labels costs more than to count
            kept = self.calls.labels(method, door, code), self.latency.labels(method)
            self._finished[method, door, code] = kept
        kept[0].inc()
        kept[1].observe(seconds)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge whose value is read when it is scraped."""
        Gauge(name, text, registry=self.registry).set_function(read)


def serve_metrics(address: Address | None, metrics: Metrics, stack: AsyncExitStack) -> Address | None:
    """Serves the metrics in a thread of its own, until the stack ends. Raises CannotBind."""
    if address is None:
        return None
    try:
        httpd, thread = start_http_server(address.port, address.host, registry=metrics.registry)
    except OSError:
        raise CannotBind(f"Can't serve metrics on {address}: the port is taken.") from None
    closing: tuple[Callable[[], None], ...] = (thread.join, httpd.server_close, httpd.shutdown)
    for close in closing:
        stack.callback(close)
    return Address(host=address.host, port=httpd.server_port)
