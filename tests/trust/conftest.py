"""An installation whose trust is followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import Account, Installation
from tests.trust.stand import (
    settled,
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Installation]:
    """One that has made its second key, so that nothing happens but what a test does."""
    with Installation(tmp_path, max_streams=8) as installation:
        settled(installation)
        yield installation


@pytest.fixture
def user(service: Installation) -> Account:
    return service.account("user")
