"""What a service says on its metrics port, read as Prometheus reads it."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.installation import Installation

SECONDS = 10.0


def text_of(service: Installation) -> str:
    """A scrape of the real port."""
    with urllib.request.urlopen(f"http://{service.started.metrics_address}/metrics", timeout=SECONDS) as got:
        text: str = got.read().decode()
    return text


@dataclass(frozen=True)
class Scrape:
    """One scrape: values by name and labels."""

    families: tuple[Metric, ...]

    @classmethod
    def of(cls, service: Installation) -> Scrape:
        return cls(tuple(text_string_to_metric_families(text_of(service))))

    def described(self) -> dict[str, tuple[str, str]]:
        """Each metric's type and text, by the name it is declared under."""
        return {
            f"{each.name}_total" if each.type == "counter" else each.name: (each.type, each.documentation)
            for each in self.families
        }

    def series(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        samples = (sample for family in self.families for sample in family.samples)
        return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}

    def get(self, name: str, **labels: str) -> float | None:
        """A series' value; None where there is no such series."""
        return self.series().get((name, frozenset(labels.items())))

    def value(self, name: str, **labels: str) -> float:
        """As `get`; fails where there is no such series."""
        found = self.get(name, **labels)
        assert found is not None, f"{name} {labels} is not there"
        return found

    def nonzero(self, name: str) -> dict[tuple[str, ...], float]:
        """Those of a metric's series that are not 0, by their labels' values in the order of the labels' names."""
        found = {labels: value for (each, labels), value in self.series().items() if each == name and value}
        return {tuple(value for _, value in sorted(labels)): value for labels, value in found.items()}


class Change:
    """What has changed between entering and leaving a `with`."""

    def __init__(self, service: Installation) -> None:
        self._service = service

    def __enter__(self) -> Change:
        self._before = Scrape.of(self._service)
        return self

    def __exit__(self, *_: object) -> None:
        self._after = Scrape.of(self._service)

    def of(self, name: str, **labels: str) -> float:
        return self._after.value(name, **labels) - (self._before.get(name, **labels) or 0)

    def all_of(self, name: str) -> dict[tuple[str, ...], float]:
        """By how much each of a metric's series has grown, those that haven't left out."""
        before, after = self._before.nonzero(name), self._after.nonzero(name)
        grown = {labels: value - before.get(labels, 0) for labels, value in after.items()}
        return {labels: by for labels, by in grown.items() if by}
