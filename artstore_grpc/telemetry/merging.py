"""The metrics of several worker processes as those of one: what Prometheus reads must not tell which of them counted.

Counters and histograms are summed over all workers there ever were, so that they never fall when one ends; gauges over
those that live, each by its rule. A worker's last second is lost with it when it is killed: that is how old what it has
told can be.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from artstore_grpc.telemetry.catalogue import Merge

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""

CUMULATIVE = ("counter", "histogram", "summary")
"""The types whose samples only grow."""
COMBINE: Mapping[Merge, Callable[[float, float], float]] = {Merge.SUM: operator.add, Merge.MAX: max, Merge.MIN: min}


@dataclass(slots=True)
class Family:
    """One metric: what it is, and its samples."""

    type: str
    text: str
    samples: dict[Key, float] = field(default_factory=dict)


Families = dict[str, Family]


def families(registry: CollectorRegistry) -> Families:
    """What a registry has now."""
    found: Families = {}
    for metric in registry.collect():
        family = found.setdefault(metric.name, Family(metric.type, metric.documentation))
        for sample in metric.samples:
            family.samples[sample.name, tuple(sorted(sample.labels.items()))] = float(sample.value)
    return found


def message(told: Families) -> list[Any]:
    """Families as JSON has them."""
    return [
        [name, family.type, family.text, [[*key, value] for key, value in family.samples.items()]]
        for name, family in told.items()
    ]


def heard(told: Iterable[Any]) -> Families:
    """What `message` made."""
    return {
        name: Family(
            kind, text, {(sample, tuple((n, v) for n, v in labels)): value for sample, labels, value in samples}
        )
        for name, kind, text, samples in told
    }


def merged(parts: Iterable[Families], rules: Mapping[str, Merge]) -> Families:
    """All of them as one. `rules`: how the values of a gauge become one, by its name; the sum, where it has none."""
    whole: Families = {}
    for part in parts:
        for name, family in part.items():
            into = whole.setdefault(name, Family(family.type, family.text))
            combine = COMBINE[Merge.SUM if family.type in CUMULATIVE else rules.get(name, Merge.SUM)]
            for key, value in family.samples.items():
                into.samples[key] = combine(into.samples[key], value) if key in into.samples else value
    return whole


def cumulative(told: Families) -> Families:
    """What stays of a worker that has ended."""
    return {name: family for name, family in told.items() if family.type in CUMULATIVE}


class Merged(Collector):
    """What the workers have told, and this process' own registry, as one. Read in a thread of the HTTP server's."""

    def __init__(self, own: CollectorRegistry, rules: Mapping[str, Merge]) -> None:
        self._own = own
        self._rules = rules
        self._lock = threading.Lock()
        self._latest: dict[int, Families] = {}
        self._ended: Families = {}

    def tell(self, worker: int, told: Families) -> None:
        """What a worker's metrics are by now. `worker`: a number that no other one ever has."""
        with self._lock:
            self._latest[worker] = told

    def forget(self, worker: int) -> None:
        """Keeps of a worker that has ended what it had counted."""
        with self._lock:
            last = self._latest.pop(worker, {})
            self._ended = merged((self._ended, cumulative(last)), self._rules)

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        own = families(self._own)
        with self._lock:
            parts = [own, self._ended, *self._latest.values()]
        for name, family in merged(parts, self._rules).items():
            metric = Metric(name, family.text, family.type)
            for (sample, labels), value in family.samples.items():
                metric.add_sample(sample, dict(labels), value)
            yield metric
