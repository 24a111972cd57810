"""A service for clients that others wrote."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.installation import Account, Installation


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A service on the embedded default."""
    with Installation(tmp_path_factory.mktemp("interop")) as installation:
        yield installation


@pytest.fixture(scope="session")
def client(service: Installation) -> Account:
    """An account for the client."""
    return service.account("user")
