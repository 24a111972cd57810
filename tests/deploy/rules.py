"""deploy/prometheus as the tests read it."""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.promql import Matcher, parsed

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "rules.yml"
CASES = (PROMETHEUS / "rules_test.yml", PROMETHEUS / "rules_long_test.yml")
RUNBOOKS = ROOT / "docs" / "runbooks"
PUBLISHED: str = runpy.run_path(str(ROOT / "deploy" / "grafana" / "panels.py"))["RUNBOOKS"]
"""Where the runbooks are published: an installation's own to say (docs/alerts.md), in one place for these tests."""


@dataclass(frozen=True)
class Rule:
    """A recording rule or an alert; several alerts may have one name."""

    name: str
    alert: bool
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]


@cache
def rules() -> tuple[Rule, ...]:
    return tuple(
        Rule(
            each.get("alert") or each["record"],
            "alert" in each,
            each["expr"],
            each.get("labels", {}),
            each.get("annotations", {}),
        )
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for each in group["rules"]
    )


@cache
def alerts() -> tuple[Rule, ...]:
    return tuple(rule for rule in rules() if rule.alert)


@cache
def records() -> set[str]:
    """The metrics that recording rules make."""
    return {rule.name for rule in rules() if not rule.alert}


@cache
def jobs() -> set[Matcher]:
    """What rules ask of the name of the scrape job."""
    selectors = (selector for rule in rules() for selector in parsed(rule.expr).selectors)
    return {matcher for selector in selectors for matcher in selector.matchers if matcher.label == "job"}


@cache
def checks() -> tuple[dict[str, Any], ...]:
    """Each check of an alert in the unit tests."""
    tests = (case for path in CASES for case in yaml.safe_load(path.read_text())["tests"])
    return tuple(check for case in tests for check in case["alert_rule_test"])
