"""Fixtures of the tests with real processes."""

from __future__ import annotations

import pytest

from tests.processes.service import Installation, install


@pytest.fixture
def installation(store_url: str) -> Installation:
    """A bootstrapped installation: the test runs on SQLite and on PostgreSQL."""
    return install(store_url)


@pytest.fixture
def on_postgres(postgres_url: str) -> Installation:
    """A bootstrapped installation on PostgreSQL."""
    return install(postgres_url)


@pytest.fixture
def on_sqlite(sqlite_url: str) -> Installation:
    """A bootstrapped installation on one SQLite file."""
    return install(sqlite_url)
