"""Fixtures of the tests with two releases at once."""

from __future__ import annotations

import pytest

from tests.upgrades.previous import Release, previous_release


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release before this one."""
    return previous_release(tmp_path_factory.mktemp("previous"))
