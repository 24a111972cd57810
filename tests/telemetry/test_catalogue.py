"""The table of metrics: named as Prometheus asks for it, closed, and complete."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from artstore_grpc.counters import Distribution
from artstore_grpc.imports import Outcome
from artstore_grpc.telemetry import catalogue
from artstore_grpc.telemetry.catalogue import BY_NAME, FAMILIES, MERGES, OTHER, Family, Kind, Merge
from artstore_grpc.telemetry.metrics import Counts, Metrics
from tests.installation import Installation
from tests.processes.service import until
from tests.telemetry.scrapes import Scrape, text_of

ROOT = Path(__file__).resolve().parents[2]

SECONDS = 30.0
NOT_BASE = re.compile(
    r"_(milliseconds|ms|microseconds|minutes|hours|days|weeks|kilobytes|kb|mb|megabytes|percent)(_|$)"
)
COUNTS_WITHIN_DAYS = "artstore_secrets_expiring_7_days"
"""Counts secrets; the days are which. promtool takes them for its unit, and for nothing else finds fault."""
OF_WORKERS = {"artstore_workers", "artstore_worker_restarts_total"}
"""What the parent of several processes adds (tests/processes/test_workers.py)."""
RESERVED = {"le", "quantile", "job", "instance"}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_names_are_as_prometheus_asks(family: Family) -> None:
    """A counter ends in `_total` and nothing else does; units are base units; each has a sentence and plain labels."""
    assert re.fullmatch(r"(artstore|process)(_[a-z0-9]+)+", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert not NOT_BASE.search(family.name) or family.name == COUNTS_WITHIN_DAYS
    assert family.kind is not Kind.HISTOGRAM or family.name.endswith("_seconds")
    assert not family.name.endswith(("_count", "_sum", "_bucket"))
    assert family.text.endswith(".")
    assert "\n" not in family.text
    assert all(re.fullmatch(r"[a-z_]+", label) and label not in RESERVED for label in family.labels)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_label_is_closed(family: Family) -> None:
    """Its values are a list without repetitions, short enough for one metric's series to be counted."""
    series = 1
    for values in family.labels.values():
        assert values
        assert len(set(values)) == len(values)
        series *= len(values)
    assert series <= 1200


def test_every_metric_has_a_merge() -> None:
    """Whoever merges processes finds each by its name; what is counted is summed."""
    assert MERGES.keys() == {family.name for family in FAMILIES}
    assert len(FAMILIES) == len(MERGES)
    assert all(family.merge is Merge.SUM for family in FAMILIES if family.kind is not Kind.GAUGE)


def test_the_sets_are_those_of_the_code() -> None:
    """Outcomes of imports, and the reasons of denials as docs/errors.md has them from the source."""
    assert sorted(Outcome) == list(catalogue.BY_NAME["artstore_accounts_imported_total"].labels["outcome"])
    rows = (ROOT / "docs" / "errors.md").read_text().splitlines()
    unauthenticated = {row.split("`")[1] for row in rows if "| UNAUTHENTICATED |" in row}
    assert unauthenticated | {"TOO_MANY_FAILURES", OTHER} == set(catalogue.DENIALS)
    assert {OTHER, "done"} < set(catalogue.STEP_OUTCOMES)
    known = {row.split("`")[1].lower() for row in rows if row.startswith("| `")}
    assert set(catalogue.STEP_OUTCOMES) - {OTHER, "done"} <= known


def test_what_is_not_in_the_list_is_other() -> None:
    """A value that a label doesn't have is exposed as `other`, summed with all others of its kind."""
    metrics = Metrics()
    metrics.denials.add("INVALID_CLIENT")
    for number in range(100):
        metrics.denials.add(f"made up {number}")
    found = metrics.registry.get_sample_value
    assert found("artstore_denials_total", {"kind": "INVALID_CLIENT"}) == 1
    assert found("artstore_denials_total", {"kind": OTHER}) == 100
    (denials,) = [each for each in metrics.collect() if each.name == "artstore_denials"]
    assert len(denials.samples) == len(catalogue.DENIALS)


def test_what_is_not_in_the_list_is_one_histogram() -> None:
    """Two methods that are not in the list are one series, of both: two of one name would make the scrape invalid."""
    metrics, spread = Metrics(), {(name,): Distribution((0.5, 1.0)) for name in ("mine", "yours")}
    spread["mine",].observe(0.1)
    spread["yours",].observe(0.7)
    metrics.spread_from("artstore_call_duration_seconds", lambda: spread)
    family = next(each for each in metrics.collect() if each.name == "artstore_call_duration_seconds")
    counts = [(sample.name.rpartition("_")[2], sample.labels.get("le"), sample.value) for sample in family.samples]
    assert counts == [
        ("bucket", "0.5", 1.0),
        ("bucket", "1.0", 2.0),
        ("bucket", "+Inf", 2.0),
        ("count", None, 2.0),
        ("sum", None, pytest.approx(0.8)),
    ]


def test_a_read_is_a_copy() -> None:
    """What a scrape has read stays as it was while calls go on being counted."""
    counts = Counts()
    counts.add("a")
    read = counts.read()
    counts.add("a")
    counts.add("b")
    assert read == {("a",): 1}
    assert counts.read() == {("a",): 2, ("b",): 1}


def test_all_of_it_is_exposed_and_nothing_else(tmp_path: Path, redis_url: str) -> None:
    """A process with a Redis exposes every metric of the table under its type and text, and none that isn't in it; no
    series says when it was created."""
    with Installation(tmp_path, redis_url=redis_url) as service:
        service.account()
        every = {family.name for family in FAMILIES} - OF_WORKERS
        until(lambda: Scrape.of(service).described().keys() == every, SECONDS, "Redis probed, and secrets counted")
        scrape = Scrape.of(service)
        ours = {name: (str(BY_NAME[name].kind), BY_NAME[name].text) for name in every if name.startswith("artstore_")}
        assert {name: said for name, said in scrape.described().items() if name in ours} == ours
        assert not [name for name, _ in scrape.series() if name.endswith("_created")]
        until(lambda: Scrape.of(service).value("artstore_redis_up") == 1, SECONDS, "a probe that was answered")
        checked(text_of(service))


def checked(text: str) -> None:
    """Where promtool is found it is asked too; the rules that it knows are asserted above."""
    promtool = shutil.which("promtool")
    if promtool is None:
        sys.stderr.write("promtool is not on this machine: the names were checked by the rules above alone\n")
        return
    said = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    complaints = [line for line in (said.stdout + said.stderr).splitlines() if line.strip()]
    assert all(line.startswith(COUNTS_WITHIN_DAYS) for line in complaints), complaints
