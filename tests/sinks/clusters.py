"""A Kubernetes sink over the local API: where it delivers, and what must be there afterwards."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from artstore_grpc.sinks.kubernetes import LABEL, MANAGER, Cluster, KubernetesSink
from artstore_grpc.sinks.protocol import Delivery
from tests.kubernetes_api import KubernetesApi
from tests.sinks.deliveries import file_of, now

TOKEN = "eyJhbGciOiJSUzI1NiJ9.token-canary"
SPACE = "storage"
DEFAULT = "sa-prod-ingester-0a1b2c3d"
OURS = {"labels": {LABEL: MANAGER}}
SECOND = timedelta(seconds=1)


def at(api: KubernetesApi, token_file: Path, trusted: Path, **options: Any) -> KubernetesSink:
    namespaces = options.pop("namespaces", (SPACE,))
    return KubernetesSink(Cluster(api.url, token_file, trusted), namespaces, now=now, **options)


def write(path: Path, content: str | None) -> None:
    """Replaces a file; None removes it."""
    path.unlink()
    if content is not None:
        path.write_text(content)


def assert_holds(api: KubernetesApi, sent: Delivery, name: str = DEFAULT, namespace: str = SPACE) -> None:
    """The Secret has the client's file and its two values."""
    values = api.values(namespace, name)
    assert json.loads(values["credentials.json"]) == file_of(sent)
    assert values["client_id"] == sent.client_id.encode()
    assert values["client_secret"] == sent.client_secret.encode()
