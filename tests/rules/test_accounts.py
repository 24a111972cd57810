"""Accounts and secrets keep their rules through any sequence of operations, on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.rules.machine import machine


def run(urls: Callable[[], str], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine(urls),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        ),
    )


@pytest.fixture
def sqlite_urls(sqlite_template: Path, tmp_path: Path) -> Callable[[], str]:
    """The URL of a fresh, migrated file at each call."""
    numbers = count()
    return lambda: f"sqlite:///{shutil.copy(sqlite_template, tmp_path / f'{next(numbers)}.db')}"


def test_the_rules_hold(sqlite_urls: Callable[[], str]) -> None:
    """Never more than two live secrets, a dead one never authenticates, a live one always does, the chain verifies."""
    run(sqlite_urls, examples=200, steps=20)
