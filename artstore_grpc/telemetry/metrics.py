"""Prometheus metrics of one process. No label holds anything that a caller can choose."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from artstore_grpc.errors import CannotBind
from artstore_grpc.settings import Address

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a warm token takes under 1 ms, bcrypt a quarter of a second."""


class Metrics:
    """What is counted, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Calls()
        self.registry.register(self.calls)
        tokens = Counter("artstore_tokens_issued", "Tokens issued, by mode.", ["mode"], registry=self.registry)
        self.issued = {mode: tokens.labels(mode) for mode in ("normal", "outage")}
        self.denials = Counter(
            "artstore_denials", "Refused authentications, by reason.", ["kind"], registry=self.registry
        )
        self.rotations = Counter(
            "artstore_rotation_steps",
            "Steps of scheduled rotation tried, by action and outcome: `done`, or the reason of the failure.",
            ["action", "outcome"],
            registry=self.registry,
        )
        self.secrets_expiring = Gauge(
            "artstore_secrets_expiring",
            "Live secrets that were warned of: the last of their accounts, about to expire.",
            registry=self.registry,
        )
        self.deliveries_pending = Gauge(
            "artstore_secret_deliveries_pending", "New secrets that wait to be delivered.", registry=self.registry
        )

        self.imported = Counter(
            "artstore_accounts_imported", "Accounts of imports, by outcome.", ["outcome"], registry=self.registry
        )

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge whose value is read when it is scraped."""
        Gauge(name, text, registry=self.registry).set_function(read)


class Calls(Collector):
    """Calls and how long they took, counted in plain numbers and made into metrics when they are asked for: every call
    is counted, and the library's own counters take a lock and walk every bucket for each."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}
        self._latencies: dict[str, Latency] = {}

    def finished(self, method: str, door: str, code: str, seconds: float) -> None:
        """Counts a call. The names are ours, never what a caller sent. For the event loop's thread only."""
        key = (method, door, code)
        self._counts[key] = self._counts.get(key, 0) + 1
        latency = self._latencies.get(method)
        if latency is None:
            latency = self._latencies[method] = Latency()
        latency.buckets[bisect_left(LATENCY_BUCKETS, seconds)] += 1
        latency.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it, in a thread of its own: from copies, which are made in one step."""
        calls = CounterMetricFamily(
            "artstore_calls", "Calls by method, door and gRPC code.", labels=["method", "door", "code"]
        )
        for labels, count in self._counts.copy().items():
            calls.add_metric(labels, count)
        yield calls
        latencies = HistogramMetricFamily(
            "artstore_call_duration_seconds", "Time in the service, by method.", labels=["method"]
        )
        for method, latency in self._latencies.copy().items():
            latencies.add_metric([method], *latency.cumulated())
        yield latencies


class Latency:
    """A histogram's numbers: how many calls fell into each bucket, the one past the last included, and their sum."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BUCKETS) + 1)
        self.seconds = 0.0

    def cumulated(self) -> tuple[list[tuple[str, float]], float]:
        """As Prometheus has it: each bucket with those below it, and the sum."""
        bounds = [*map(floatToGoString, LATENCY_BUCKETS), "+Inf"]
        return list(zip(bounds, accumulate(self.buckets.copy()), strict=True)), self.seconds


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
