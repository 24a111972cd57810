"""Fixtures of the tests with two releases at once."""

from __future__ import annotations

import pytest

from tests.upgrades.previous import Release, previous_release


@pytest.fixture(scope="session")
def previous(postgres_server_url: str, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release before this one. After the servers: where its history isn't there these tests are skipped, and that
    is not to hide that a server is missing."""
    return previous_release(tmp_path_factory.mktemp("previous"))
