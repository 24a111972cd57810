"""What docs/sinks.md shows is right: its configuration is read, its receivers verify, its role is enough."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from artstore_grpc.sinks.configuration import cluster_of, read
from artstore_grpc.sinks.credentials import document
from artstore_grpc.sinks.kubernetes import LABEL, MANAGER, KubernetesSink
from artstore_grpc.sinks.webhook import WebhookSink, encoded
from tests.https import HttpsServer, Request, Response
from tests.kubernetes_api import KubernetesApi
from tests.sinks.deliveries import CLIENT_ID, delivery, now

TEXT = (Path(__file__).resolve().parents[2] / "docs/sinks.md").read_text()
KEY = os.urandom(32)
Verifier = Callable[[Request, bytes], bool]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_configuration(tmp_path: Path, trusted: Path) -> None:
    """Its example is a sinks file, once the paths are those of this machine."""
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "key").write_text(base64.b64encode(KEY).decode())
    example = json.loads(blocks("json")[0])
    example["sinks"]["disk"]["folder"] = f"{tmp_path}/folder"
    example["sinks"]["vault"]["key_file"] = example["sinks"]["cluster"]["token_file"] = f"{tmp_path}/key"
    example["sinks"]["cluster"]["ca_file"] = str(trusted)
    (tmp_path / "sinks.json").write_text(json.dumps(example))
    assert read(tmp_path / "sinks.json").names == ("cluster", "disk", "vault")


def test_the_formats() -> None:
    """The members of what is delivered, and of a webhook's body, are those that are sent."""
    shown, body = json.loads(blocks("json")[1]), json.loads(blocks("json")[2])
    sent = json.loads(encoded(delivery()))
    assert shown.keys() == document(delivery()).keys()
    assert body["type"] == sent["type"]
    assert body["data"].keys() == sent["data"].keys()


def by_python(request: Request, key: bytes) -> bool:
    """The example in Python."""
    example: dict[str, Any] = {}
    exec(blocks("python")[0], example)
    verdict: bool = example["verified"](request.headers, request.body, key)
    return verdict


def by_shell(request: Request, key: bytes, folder: Path) -> bool:
    """The example for a shell; its last line's status is the verdict."""
    (folder / "body").write_bytes(request.body)
    (folder / "webhook.key").write_text(f"whsec_{base64.b64encode(key).decode()}\n")
    names = {"id": "webhook-id", "timestamp": "webhook-timestamp", "signature": "webhook-signature"}
    environment = {name: request.headers[header] for name, header in names.items()}
    ended = subprocess.run(
        ["sh", "-c", blocks("sh")[0]], cwd=folder, env=os.environ | environment, capture_output=True, text=True
    )
    assert not ended.stderr
    return ended.returncode == 0


@pytest.fixture(params=["python", "shell"])
def verified(request: pytest.FixtureRequest, tmp_path: Path) -> Verifier:
    return by_python if request.param == "python" else lambda sent, key: by_shell(sent, key, tmp_path)


async def sent_at(time: datetime, ca: trustme.CA, trusted: Path, folder: Path, *keys: bytes) -> Request:
    """A request as a receiver gets it."""
    key_file = folder / "keys"
    key_file.write_text("\n".join(base64.b64encode(key).decode() for key in keys))
    with HttpsServer(lambda request: Response(200), ca) as server:
        sink = WebhookSink(server.url, key_file, now=lambda: time, ca_file=trusted)
        await sink.deliver(delivery())
        return server.requests[0]


async def test_receivers(ca: trustme.CA, trusted: Path, tmp_path: Path, verified: Verifier) -> None:
    """Both examples accept what the sink sends, by either of two keys, and refuse what was changed, what another key
    signed, and what is replayed after 5 minutes."""
    time, other = datetime.now(UTC), os.urandom(48)
    request = await sent_at(time, ca, trusted, tmp_path, KEY, other)
    assert verified(request, KEY)
    assert verified(request, other)
    assert not verified(request, os.urandom(32))
    assert not verified(Request("POST", "/", request.headers, request.body.replace(b"1", b"2", 1)), KEY)
    for header, value in (("webhook-id", "secret_x"), ("webhook-signature", "v1,"), ("webhook-signature", "v1a,AA==")):
        assert not verified(Request("POST", "/", request.headers | {header: value}, request.body), KEY)
    for minutes in (-6, 6):
        replayed = await sent_at(time + timedelta(minutes=minutes), ca, trusted, tmp_path, KEY)
        assert not verified(replayed, KEY)


async def test_the_role(ca: trustme.CA, trusted: Path, tmp_path: Path) -> None:
    """The verbs of the example's role are enough for the example's Secret, and no more than are needed."""
    secret, role, binding = yaml.safe_load_all(blocks("yaml")[0])
    (rule,) = role["rules"]
    assert secret["metadata"]["labels"] == {LABEL: MANAGER}
    assert rule["resourceNames"] == [secret["metadata"]["name"]]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (tmp_path / "token").write_text("token")
    namespace, name = secret["metadata"]["namespace"], secret["metadata"]["name"]
    with KubernetesApi(ca, tokens={"token"}, namespaces={namespace}) as api:
        api.put(namespace, name, metadata={"labels": secret["metadata"]["labels"]})
        api.forbidden = {"get", "create", "update", "delete"} - set(rule["verbs"])
        cluster = cluster_of(api.url, tmp_path / "token", trusted)
        await KubernetesSink(cluster, (namespace,), now=now).deliver(delivery())
        assert set(api.verbs) == set(rule["verbs"])
        assert api.values(namespace, name)["client_id"] == CLIENT_ID.encode()
