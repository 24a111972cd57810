"""A service with TLS, and a listener that demands certificates."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.installation import ANY, Installation
from tests.transport.machines import Files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def service(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A service with TLS, and a listener that demands certificates."""
    settings = files.settings | {
        "grpc_mtls_address": ANY,
        "mtls_client_ca_file": files.ca_file,
        "health_address": ANY,
    }
    with Installation(tmp_path_factory.mktemp("service"), **settings) as made:
        yield made
