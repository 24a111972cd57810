"""Accounts and secrets keep their rules through any sequence of operations, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import make_url

from tests.rules.machine import machine

Urls = Callable[[], str]


def run(urls: Urls, *, examples: int, steps: int) -> None:
    """Runs lives of at most `steps` operations, and shrinks the first one that breaks a rule."""
    run_state_machine_as_test(
        machine(urls),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def sqlite_urls(sqlite_template: Path, tmp_path: Path) -> Urls:
    """The URL of a fresh, migrated file at each call."""
    numbers = count()
    return lambda: f"sqlite:///{shutil.copy(sqlite_template, tmp_path / f'{next(numbers)}.db')}"


@pytest.fixture
def postgres_urls(postgres_server_url: str, postgres_template: str) -> Iterator[Urls]:
    """The URL of a fresh, migrated database at each call."""
    made: list[str] = []

    def fresh() -> str:
        made.append(f"artstore_{uuid4().hex[:12]}")
        asyncio.run(execute(postgres_server_url, f"CREATE DATABASE {made[-1]} TEMPLATE {postgres_template}"))
        return make_url(postgres_server_url).set(database=made[-1]).render_as_string(hide_password=False)

    yield fresh
    asyncio.run(execute(postgres_server_url, *(f"DROP DATABASE {name} WITH (FORCE)" for name in made)))


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.mark.timeout(300)
def test_the_rules_hold(sqlite_urls: Urls) -> None:
    """Never more than two live secrets, a dead one never authenticates, a live one always does, the chain verifies."""
    run(sqlite_urls, examples=100, steps=15)


@pytest.mark.fuzz
@pytest.mark.timeout(600)
def test_the_rules_hold_through_long_lives(sqlite_urls: Urls) -> None:
    """The same through ten thousand operations, in lives long enough to fill and empty every list."""
    run(sqlite_urls, examples=200, steps=50)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_rules_hold_on_postgresql(postgres_urls: Urls) -> None:
    """The same through thousands of operations on PostgreSQL."""
    run(postgres_urls, examples=60, steps=50)
