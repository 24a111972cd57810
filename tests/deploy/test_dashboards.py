"""The dashboards load without edits, say what they show, and ask for what the service exposes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.deploy.promql import VARIABLES, Matcher, parsed
from tests.deploy.rules import PUBLISHED, ROOT, RUNBOOKS
from tests.deploy.test_rules import strangers

GRAFANA = ROOT / "deploy" / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
CHOSEN = Matcher("job", "=~", VARIABLES["$job"])
BOARDS = {path.stem: json.loads(path.read_text()) for path in FILES}


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


QUERIES = [
    pytest.param(target["expr"], id=f"{name}: {panel['title']} {target['refId']}")
    for name, board in BOARDS.items()
    for panel in panels(board)
    for target in panel["targets"]
]


def test_the_files_are_what_the_generator_writes() -> None:
    program = [sys.executable, str(GRAFANA / "generate.py"), "--check"]
    checked = subprocess.run(program, capture_output=True, text=True)
    assert not checked.returncode, checked.stderr


def test_the_four_dashboards_are_there() -> None:
    """Each under a uid of its own, which stays."""
    assert {name: board["uid"] for name, board in BOARDS.items()} == {
        "database": "artstore-identity-database",
        "overview": "artstore-identity-overview",
        "secrets_and_keys": "artstore-identity-secrets-and-keys",
        "tokens": "artstore-identity-tokens",
    }


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_needs_no_edits(name: str) -> None:
    """Its datasource is a variable wherever one is named, and no id of another Grafana is in it."""
    board = BOARDS[name]
    assert "__inputs" not in board
    assert "id" not in board
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    named = json.dumps(board).split('"uid": ')[1:]
    assert {each.split('"')[1] for each in named} == {board["uid"], "${datasource}"}


@pytest.mark.parametrize("name", BOARDS)
def test_a_panel_says_what_it_shows(name: str) -> None:
    """A description, a unit, a legend where there are several series, a runbook that exists, a place of its own."""
    taken: set[tuple[int, int]] = set()
    titles = [panel["title"] for panel in panels(BOARDS[name])]
    assert len(titles) == len(set(titles))
    for panel in BOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in panels(BOARDS[name]):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for link in panel.get("links", ()):
            page = link["url"].removeprefix(f"{PUBLISHED}/").removesuffix(".html")
            assert (RUNBOOKS / f"{page}.md").exists(), page


def test_replicas_are_told_apart() -> None:
    """The overview has panels by instance."""
    by_instance = [
        panel["title"] for panel in panels(BOARDS["overview"]) if "by (instance)" in panel["targets"][0]["expr"]
    ]
    assert {"CPU", "Memory", "Calls by instance", "Calls in progress"} <= set(by_instance)


@pytest.mark.parametrize("query", QUERIES)
def test_each_query_asks_for_what_there_is(query: str) -> None:
    """Every metric, label and label's value is one that the catalogue has; each is asked of the chosen job alone."""
    found = parsed(query)
    assert found.selectors
    assert not strangers(found)
    assert all(CHOSEN in selector.matchers for selector in found.selectors)
