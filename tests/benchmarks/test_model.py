"""The model of docs/scaling.md against what was measured, and the page against the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.model import (
    MEASURED,
    PAGE,
    TABLES,
    Costs,
    Load,
    costs,
    markdown,
    measured,
    needs,
    redis_scripts_per_token,
)
from benchmarks.scaling import CALLED

COSTS = Costs(token_us=1000, sharing=1.05, idle_ms=10, idle_transactions=6, process_mib=100, supervisor_mib=30)
POINTS: list[dict[str, Any]] = measured()["points"] if MEASURED.exists() else []
"""Empty until `make bench-scaling ARGS=--keep` has been run."""
SHARING = 1.2
"""CPU of a token with several workers, as a multiple of one worker's, where PostgreSQL, Redis and the load generator
are on the same cores. What it must be without them (1.1) is a row of `make bench`."""


def test_the_page_is_what_was_measured() -> None:
    """docs/scaling.md has the tables that `python -m benchmarks.model` prints."""
    page = PAGE.read_text()
    assert TABLES.search(page)
    if not POINTS:
        assert "Not kept yet" in page
        return
    assert TABLES.sub(lambda found: found[1] + markdown(measured()) + found[2], page) == page


def test_the_curve_was_measured_without_errors() -> None:
    """One, two and four workers, no failed call."""
    assert [point["workers"] for point in POINTS] in ([], [1, 2, 4])
    assert not any(point["errors"] for point in POINTS)


def test_the_model_agrees_with_the_curve() -> None:
    """From one worker's figures alone it tells those of more: a token's CPU within the fifth that sharing may cost,
    where each has a core; memory within a tenth; what they ask of the database at rest within a quarter."""
    for point in POINTS:
        agrees(point)


def agrees(point: dict[str, Any]) -> None:
    one, count = replace(costs(POINTS), sharing=1.0), point["workers"]
    full = needs(Load(count / one.token_us * 1e6, CALLED), one, utilisation=1.0)
    assert full.workers == count
    assert point["cpu_us_per_token"] <= SHARING * one.token_us or point["workers"] > point["cores"]
    assert full.mib == pytest.approx(point["resident_mib"], rel=0.1)
    rest = needs(Load(0, CALLED), one, replicas=count)
    assert rest.database_transactions_per_second == pytest.approx(point["idle_transactions"] + count / 5, rel=0.25)
    asked = redis_scripts_per_token(Load(point["tokens_per_second"], CALLED, rate_limit=1_000_000), count)
    assert point["redis_scripts_per_token"] == pytest.approx(asked, abs=0.05)


def test_a_process_that_is_not_busy_is_one() -> None:
    """Below what a core may be used, a replica is one process, without a supervisor."""
    found = needs(Load(500, 100), COSTS)
    assert (found.workers, found.mib) == (1, 100)
    assert found.cores == pytest.approx(0.5 + 0.01)


def test_more_take_more() -> None:
    """Twice the load takes twice the cores, and workers enough that none is used beyond its part; changes reach the
    database, tokens don't."""
    found = needs(Load(6_000, 1_000, changes_per_second=7), COSTS, replicas=2)
    assert found.workers == 6
    assert found.cores == pytest.approx(6 * 1.05 + 12 * 0.01)
    assert found.database_transactions_per_second == pytest.approx(12 * 6.2 + 7)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(100, 10, rate_limit=3_999), 1.0),
        (Load(6_400, 10, rate_limit=1_000_000), 1 / 64),
        (Load(10, 10, rate_limit=1_000_000), 0.2),
        (Load(1, 100, rate_limit=1_000_000), 1.0),
    ],
    ids=["low limit", "busy", "now and then", "seldom"],
)
def test_redis_is_asked_for_shares(load: Load, expected: float) -> None:
    """Once for each token below a limit of 4,000; once for a share where it is used up, or lost after ten seconds."""
    assert redis_scripts_per_token(load, processes=2) == pytest.approx(expected)
