"""Every query of the dashboards and the rules against a service that runs: what it asks for is in the scrape, and a
real Prometheus, where there is one, evaluates it."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy import prometheus
from tests.deploy.promql import BY_PROMETHEUS, parsed, plain
from tests.deploy.rules import records, rules
from tests.deploy.stage import Stage, staged
from tests.deploy.test_dashboards import BOARDS, panels
from tests.deploy.test_rules import FROM_PROMETHEUS
from tests.processes.service import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOAD = {"tokens": 0.3, "refusals": 1.0, "changes": 2.0, "bring_over": 5.0, "deliver": 10.0}
"""Seconds between two rounds of each sort of traffic."""
SECONDS = 90.0
"""A turn of the rotation and one of the census come every half a minute."""
SHOWN = {
    f"{name}: {panel['title']} {target['refId']}": target["expr"]
    for name, board in BOARDS.items()
    for panel in panels(board)
    for target in panel["targets"]
}
MAY_BE_EMPTY = {
    "secrets_and_keys: Steps that failed A",
    "database: Calls refused for a dependency A",
}
"""Where the traffic makes nothing of."""
EVERY = {**SHOWN, **{rule.name: rule.expr for rule in rules()}}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two replicas that have seen every sort of call."""
    with staged(tmp_path_factory.mktemp("stage")) as made:
        for client in made.clients:
            made.bearers(client)
        works = [lambda client=client: made.follow(client) for client in made.clients]
        works += [made.every(seconds, getattr(made, work)) for work, seconds in LOAD.items()]
        with made.busy(works):
            yield made


@pytest.fixture(scope="module")
def scraped(stage: Stage) -> dict[str, set[str]]:
    """The labels of each series' name, as the replicas expose them; once the jobs had their first turns."""

    def whole() -> dict[str, set[str]] | None:
        found: dict[str, set[str]] = {}
        for target in stage.targets:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=10) as got:
                for family in text_string_to_metric_families(got.read().decode()):
                    for sample in family.samples:
                        found.setdefault(sample.name, set()).update(sample.labels)
        awaited = {"artstore_secrets_expiring_7_days", "artstore_secrets_expired", "artstore_rotation_steps_total"}
        return found if awaited <= set(found) else None

    made: dict[str, set[str]] = until(whole, SECONDS, "every metric that jobs count")
    return made


def test_each_query_finds_its_metrics_in_a_scrape(scraped: dict[str, set[str]]) -> None:
    """Each metric is exposed by a service that runs, with the labels that the query matches or groups by. One test for
    all of them, so that they share the service in whichever process tests run."""
    missing = {name: wanting for name, query in EVERY.items() if (wanting := wanted(scraped, query))}
    assert not missing
    assert len(EVERY) > 100


def wanted(scraped: dict[str, set[str]], query: str) -> set[str]:
    """The metrics and labels of a query that no series has."""
    found = parsed(query)
    labels, wanting = set(BY_PROMETHEUS), set()
    for selector in found.selectors:
        if selector.metric in records() | FROM_PROMETHEUS:
            continue
        if selector.metric not in scraped:
            wanting.add(selector.metric)
            continue
        labels |= scraped[selector.metric]
        matched = {each.label for each in selector.matchers}
        wanting |= {f"{selector.metric}{{{label}}}" for label in matched - scraped[selector.metric] - BY_PROMETHEUS}
    return wanting | (set(found.grouped) - labels)


def test_a_real_prometheus_evaluates_every_query(stage: Stage, scraped: dict[str, set[str]], tmp_path: Path) -> None:
    """Without an error; and with data, where the traffic makes some. Only where there is a Prometheus."""
    if prometheus.found() is None:
        return  # the test above holds all the same
    with prometheus.watching(tmp_path / "prometheus", stage.targets) as made:
        until(lambda: len(made.query("up == 1")) == len(stage.targets), 30, "all replicas scraped")
        until(lambda: made.query("job:artstore_issue_token_slow:ratio_rate5m"), 60, "rules evaluated")
        for rule in rules():
            made.query(rule.expr)
        health = [(each["name"], each["health"]) for group in made.asked("rules")["groups"] for each in group["rules"]]
        assert len(health) == len(rules())
        assert {each for _, each in health} == {"ok"}, health

        def empty() -> set[str]:
            return {name for name, query in SHOWN.items() if not made.query(plain(query))} - MAY_BE_EMPTY

        left = empty()
        deadline = time.monotonic() + SECONDS
        while left and time.monotonic() < deadline:
            left = empty()
        assert not left
