"""The alerts: each can be computed from what the service exposes, has its cases, and a page that tells what to do."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

from artstore_grpc.telemetry.catalogue import BY_NAME
from tests.deploy.promql import BY_PROMETHEUS, Query, parsed
from tests.deploy.rules import PROMETHEUS, PUBLISHED, ROOT, RULES, RUNBOOKS, Rule, alerts, checks, jobs, records, rules

FETCHED = ROOT / "build/prometheus/usr/bin/promtool"
NAMES = sorted({rule.name for rule in alerts()})
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
FROM_PROMETHEUS = {"up"}
SECTIONS = ["What it means", "Who is affected", "Look first", "What to do", "It is over when"]


def strangers(query: Query) -> list[str]:
    """What a query asks for that no scrape has: a metric, a label, or a value that the label never takes."""
    found = []
    labels: set[str] = {"le"}
    for selector in query.selectors:
        if selector.metric in records() | FROM_PROMETHEUS:
            continue
        family = BY_NAME.get(selector.family)
        if family is None:
            found.append(selector.metric)
            continue
        labels |= set(family.labels)
        for each in selector.matchers:
            if each.label in BY_PROMETHEUS or each.label == "le":
                continue
            values = family.labels.get(each.label, ())
            if not any(each.admits(value) for value in values) or all(each.admits(value) for value in values):
                found.append(f"{selector.metric}{{{each.label}{each.op}{each.value}}}")
            if each.op == "=~" and "(" not in each.value and set(each.value.split("|")) - set(values):
                found.append(f"{selector.metric}{{{each.label}}}: {each.value}")
    return found + [label for label in query.grouped if label not in labels | BY_PROMETHEUS]


def test_the_rules_are_for_the_job_that_compose_scrapes() -> None:
    """Of another one those that ask for its name would say nothing, not even that it is down."""
    (scraped,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert jobs()
    assert all(each.admits(scraped["job_name"]) for each in jobs())


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.name)
def test_each_query_asks_for_what_there_is(rule: Rule) -> None:
    """Every metric, label and label's value of every rule is one that the catalogue has."""
    query = parsed(rule.expr)
    assert query.selectors
    assert not strangers(query)


def test_a_query_that_asks_for_something_else_is_found() -> None:
    """The check above can fail: for a metric, a label, a value."""
    assert strangers(parsed("artstore_no_such_total"))
    assert strangers(parsed('artstore_calls_total{colour="red"}'))
    assert strangers(parsed('artstore_calls_total{code="NO_SUCH"}'))
    assert strangers(parsed('artstore_calls_total{code=~"INTERNAL|NO_SUCH"}'))
    assert strangers(parsed("sum by (colour) (artstore_calls_total)"))
    assert strangers(parsed("max_over_time(sum(rate(artstore_no_such_total[5m]))[1h:1m])"))
    with pytest.raises(ValueError, match="unclosed"):
        parsed("sum by (")


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule.name)
def test_each_alert_says_what_somebody_woken_needs(rule: Rule) -> None:
    """How bad it is, what happens, what that means, and where the page is: below one address for all."""
    assert rule.labels["severity"] in ("page", "ticket")
    assert set(rule.annotations) == {"summary", "description", "runbook_url"}
    assert rule.annotations["summary"].endswith(".")
    assert rule.annotations["runbook_url"] == f"{PUBLISHED}/{rule.name}.html"


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: f"{rule.name} {rule.labels['severity']}")
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(rule: Rule) -> None:
    """In the unit tests that promtool runs."""
    own = [check for check in checks() if check["alertname"] == rule.name]
    fired = [each["exp_labels"]["severity"] for check in own for each in check.get("exp_alerts", ())]
    assert rule.labels["severity"] in fired
    assert any(not check.get("exp_alerts") for check in own)


def test_each_case_is_of_an_alert() -> None:
    """promtool would take a name that is no alert's for one that doesn't fire."""
    assert {check["alertname"] for check in checks()} == set(NAMES)


@pytest.mark.slow
def test_the_unit_tests_pass() -> None:
    """Where there is a promtool; `make lint` runs them too."""
    promtool = shutil.which("promtool") or (str(FETCHED) if FETCHED.exists() else None)
    if promtool is None:
        return  # said by make lint; the tests above hold all the same
    done = subprocess.run([promtool, "check", "rules", RULES], capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
    done = subprocess.run(
        [promtool, "test", "rules", *(PROMETHEUS / name for name in ("rules_test.yml", "rules_long_test.yml"))],
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stdout + done.stderr


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    assert [path.stem for path in PAGES] == NAMES


def test_the_list_of_alerts_is_whole() -> None:
    """docs/alerts.md has each alert once, with its severities, what it says, and a link to its page."""
    listed = re.findall(
        r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| ([a-z, ]+) \| (.+) \|$", (ROOT / "docs/alerts.md").read_text(), re.M
    )
    expected = []
    for name in dict.fromkeys(rule.name for rule in alerts()):
        of_name = [rule for rule in alerts() if rule.name == name]
        severities = ", ".join(rule.labels["severity"] for rule in of_name)
        expected.append((name, name, severities, of_name[0].annotations["summary"]))
    assert listed == expected


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_page_has_its_sections(page: Path) -> None:
    """Under the alert's name, its summary and severities."""
    text = page.read_text()
    of_name = [rule for rule in alerts() if rule.name == page.stem]
    severities = " and ".join(rule.labels["severity"] for rule in of_name)
    assert text.startswith(f"# {page.stem}\n{of_name[0].annotations['summary']} Severity: {severities}.\n")
    assert re.findall(r"^## (.*)$", text, re.M) == SECTIONS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_query_of_a_page_can_be_asked(page: Path) -> None:
    for query in blocks(page, "promql"):
        assert not strangers(parsed(query)), query


@cache
def program() -> str:
    """The service's source."""
    return "\n".join(path.read_text() for path in (ROOT / "artstore_grpc").rglob("*.py"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_line_of_the_log_is_one_that_is_written(page: Path) -> None:
    """A page that says "event `x`" means an event of the program."""
    for event in re.findall(r"events? `([^`]+)`", page.read_text()):
        assert f'"{event}"' in program(), event
