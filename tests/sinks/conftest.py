"""Fixtures of the tests of the sinks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from artstore_grpc.sinks.kubernetes import Cluster, KubernetesSink
from tests.https import ca_file
from tests.kubernetes_api import KubernetesApi
from tests.sinks.clusters import SPACE, TOKEN
from tests.sinks.deliveries import now


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    """Who signs the certificates of the tests' servers."""
    return trustme.CA()


@pytest.fixture
def trusted(ca: trustme.CA, tmp_path: Path) -> Path:
    """The file of that CA's certificate."""
    return ca_file(ca, tmp_path)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
def api(ca: trustme.CA) -> Iterator[KubernetesApi]:
    with KubernetesApi(ca, tokens={TOKEN}, namespaces={SPACE, "query"}) as running:
        yield running


@pytest.fixture
def sink(api: KubernetesApi, token_file: Path, trusted: Path) -> KubernetesSink:
    return KubernetesSink(Cluster(api.url, token_file, trusted), (SPACE,), now=now)
