"""The metrics of one process: what was counted in plain numbers, as Prometheus asks for it, on a port of its own.

A scrape runs in a thread of its own, and reads numbers that the event loop's thread writes: from copies that are made
in one step, without a lock, so that neither waits for the other. Names, labels and meanings are catalogue.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from itertools import product

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from artstore_grpc.counters import LATENCY_BUCKETS, Distribution
from artstore_grpc.credentials import is_basic
from artstore_grpc.errors import CannotBind
from artstore_grpc.settings import Address
from artstore_grpc.telemetry.catalogue import BY_NAME, FAMILIES, OTHER, ClientAuthentication, Family, Kind

Series = Mapping[tuple[str, ...], float]
"""Values by their labels' values, in the order of the catalogue."""
Numbers = Callable[[], Series | float | None]
"""Reads a counter or a gauge; None: there is nothing to tell yet."""
Distributions = Callable[[], Mapping[tuple[str, ...], Distribution]]

MOST_AT_ZERO = 64
"""A counter with so many series at most starts with all of them at 0, so that its first increase is seen as one."""


class Counts:
    """A counter's numbers by the values of its labels."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str, by: int = 1) -> None:
        """Counts. The labels are ours, never what a caller sent. For the event loop's thread only."""
        self._counts[labels] = self._counts.get(labels, 0) + by

    def read(self) -> Series:
        return self._counts.copy()


class Calls:
    """Calls and how long they took."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._latencies: dict[tuple[str, ...], Distribution] = {}

    def finished(self, method: str, door: str, code: str, seconds: float) -> None:
        """Counts a call. The names are ours, never what a caller sent. For the event loop's thread only."""
        self.counts.add(method, door, code)
        latency = self._latencies.get((method,))
        if latency is None:
            latency = self._latencies[(method,)] = Distribution(LATENCY_BUCKETS)
        latency.observe(seconds)

    def latencies(self) -> Mapping[tuple[str, ...], Distribution]:
        return self._latencies.copy()


class Metrics(Collector):
    """Everything that is counted, in a registry of its own. What parts count themselves is bound by `read_from`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Calls()
        self.token_requests = Counts()
        self.issued = Counts()
        self.denials = Counts()
        self.rotations = Counts()
        self.imported = Counts()
        self._numbers: dict[str, Numbers] = {}
        self._distributions: dict[str, Distributions] = {}
        self.read_from("artstore_calls_total", self.calls.counts.read)
        self.spread_from("artstore_call_duration_seconds", self.calls.latencies)
        self.read_from("artstore_token_requests_total", self.token_requests.read)
        self.read_from("artstore_tokens_issued_total", self.issued.read)
        self.read_from("artstore_denials_total", self.denials.read)
        self.read_from("artstore_rotation_steps_total", self.rotations.read)
        self.read_from("artstore_accounts_imported_total", self.imported.read)
        (running,) = BY_NAME["artstore_build_info"].labels["version"]
        self.read_from("artstore_build_info", lambda: {(running,): 1})
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def token_refused(self, outcome: str, authorization: str) -> None:
        """Counts a request for a token that HTTP itself refused, before anybody read what is in it."""
        way = ClientAuthentication.BASIC if is_basic(authorization) else ClientAuthentication.NONE
        self.token_requests.add(outcome, way)

    def read_from(self, name: str, read: Numbers) -> None:
        """Binds a counter or a gauge of the catalogue to what reads it, in whichever thread the scrape runs."""
        assert BY_NAME[name].kind is not Kind.HISTOGRAM
        self._numbers[name] = read

    def spread_from(self, name: str, read: Distributions) -> None:
        """As `read_from`, for a histogram."""
        assert BY_NAME[name].kind is Kind.HISTOGRAM
        self._distributions[name] = read

    def describe(self) -> Iterator[Metric]:
        """The names, for the registry, which asks before anything is bound."""
        return (made(family) for family in FAMILIES if family.name.startswith("artstore_"))

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        for family in FAMILIES:
            if family.name in self._numbers:
                yield from numbers(family, self._numbers[family.name]())
            elif family.name in self._distributions:
                yield histogram(family, self._distributions[family.name]())


def made(family: Family) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    """A metric without samples."""
    if family.kind is Kind.COUNTER:
        return CounterMetricFamily(family.name.removesuffix("_total"), family.text, labels=list(family.labels))
    if family.kind is Kind.GAUGE:
        return GaugeMetricFamily(family.name, family.text, labels=list(family.labels))
    return HistogramMetricFamily(family.name, family.text, labels=list(family.labels))


def numbers(family: Family, read: Series | float | None) -> Iterator[Metric]:
    """A counter or a gauge, with what was read; nothing where there is nothing to tell yet."""
    if read is None:
        return
    metric = made(family)
    assert not isinstance(metric, HistogramMetricFamily)
    values: Series = read if isinstance(read, Mapping) else {(): read}
    for labels, value in complete(family, values).items():
        metric.add_metric(labels, value)
    yield metric


def complete(family: Family, values: Series) -> dict[tuple[str, ...], float]:
    """The values with labels in their sets alone; a counter of few series with all of them."""
    found: dict[tuple[str, ...], float] = {}
    if family.kind is Kind.COUNTER:
        every = list(product(*([value for value in values if value != OTHER] for values in family.labels.values())))
        found = dict.fromkeys(every, 0) if len(every) <= MOST_AT_ZERO else {}
    for labels, value in values.items():
        told = closed(family, labels)
        found[told] = found.get(told, 0) + value
    return found


def closed(family: Family, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Labels with OTHER in place of a value that is not in its set."""
    return tuple(
        value if value in known else OTHER for value, known in zip(labels, family.labels.values(), strict=True)
    )


def histogram(family: Family, read: Mapping[tuple[str, ...], Distribution]) -> Metric:
    """A histogram, with labels in their sets alone; all of one family have the same bounds."""
    metric = made(family)
    assert isinstance(metric, HistogramMetricFamily)
    found: dict[tuple[str, ...], tuple[list[tuple[str, float]], float]] = {}
    for labels, distribution in read.items():
        counts, total = distribution.cumulated()
        told = closed(family, labels)
        bounds = [*map(floatToGoString, distribution.bounds), "+Inf"]
        before, sum_before = found.get(told, ([(bound, 0.0) for bound in bounds], 0.0))
        buckets = [(bound, more + count) for (bound, more), count in zip(before, counts, strict=True)]
        found[told] = buckets, sum_before + total
    for told, (buckets, total) in found.items():
        metric.add_metric(told, buckets, total)
    return metric


def serve_metrics(
    address: Address | None, registry: CollectorRegistry, stack: AsyncExitStack | ExitStack
) -> Address | None:
    """Serves a registry in a thread of its own, until the stack ends. Raises CannotBind."""
    if address is None:
        return None
    try:
        httpd, thread = start_http_server(address.port, address.host, registry=registry)
    except OSError:
        raise CannotBind(f"Can't serve metrics on {address}: the port is taken.") from None
    closing: tuple[Callable[[], None], ...] = (thread.join, httpd.server_close, httpd.shutdown)
    for close in closing:
        stack.callback(close)
    return Address(host=address.host, port=httpd.server_port)
