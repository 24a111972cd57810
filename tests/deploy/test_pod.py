"""What the chart renders, run: its containers as processes with their arguments, variables and files, on a real
PostgreSQL and Redis, and probed as the kubelet would. No cluster runs here; this is the nearest real thing."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
import yaml
from artstore.identity.v1 import token_service_pb2, token_service_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.cli.processes import clean_environment
from tests.deploy.charts import CHART, Rendered, environment_of, render
from tests.processes.service import until

COMMAND = [sys.executable, "-m", "artstore_grpc.cli.main"]
"""The image's ENTRYPOINT."""
ADDRESS = f"127.{os.getpid() % 200 + 20}.86.7" if sys.platform == "linux" else "127.0.0.1"
"""The pod's: the ports are the chart's own, so that tests side by side need loopback addresses of their own. Linux has
16 million of them."""
SECONDS = 60.0


class Pod:
    """A container of the chart: its volumes are folders, its secrets files in them, its address ADDRESS."""

    def __init__(self, rendered: Rendered, kind: str, folder: Path, secrets: dict[str, dict[str, str]]) -> None:
        self._folder, self._secrets = folder, secrets
        self.spec, self.container = rendered.pod(kind), rendered.container(kind)
        self._mounts = {each["mountPath"]: folder / each["name"] for each in self.container["volumeMounts"]}
        for volume in self.spec["volumes"]:
            self._fill(folder / volume["name"], volume)
        given = {name: self._local(value) for name, value in environment_of(self.container).items()}
        data = folder / "data"
        self.environment = clean_environment(**given, ARTSTORE_DATA_DIR=str(data))

    def _fill(self, folder: Path, volume: dict[str, Any]) -> None:
        folder.mkdir(parents=True)
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                (folder / item["path"]).write_text(self._secrets[source["secret"]["name"]][item["key"]])
        if "secret" in volume:
            for key, value in self._secrets[volume["secret"]["secretName"]].items():
                (folder / key).write_text(value)

    def _local(self, value: str) -> str:
        for path, folder in self._mounts.items():
            if value.startswith(f"{path}/"):
                return str(folder) + value.removeprefix(path)
        return value.replace("0.0.0.0", ADDRESS)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As `kubectl exec` runs one."""
        return subprocess.run(
            [*COMMAND, *arguments], env=self.environment, cwd=self._folder, capture_output=True, text=True, check=False
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        """The container, to its end."""
        return self.command(*self.container["args"])

    def start(self) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("wb") as log:
            return subprocess.Popen(
                [*COMMAND, *self.container["args"]], env=self.environment, cwd=self._folder, stderr=log, stdout=log
            )

    def probe(self, name: str) -> bool:
        """As the kubelet probes: a call without TLS, within the probe's own timeout."""
        probe = self.container[f"{name}Probe"]
        with grpc.insecure_channel(f"{ADDRESS}:{probe['grpc']['port']}") as channel:
            request = health_pb2.HealthCheckRequest(service=probe["grpc"]["service"])
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=probe["timeoutSeconds"])
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_rendered_pod_serves(
    tmp_path: Path, postgres_url: str, run_role: str, run_url: str, redis_url: str
) -> None:
    """The Job migrates, the container starts as the other role, its probes pass by their ports and services, `exec`
    bootstraps, a client gets a token by TLS; on SIGTERM it turns unready first, alive, and ends within
    the pod's grace."""
    ca = trustme.CA()
    pair = ca.issue_cert("identity.artstore.svc")
    secrets = {
        "identity-database": {"url": run_url},
        "identity-database-owner": {"url": postgres_url},
        "identity-redis": {"url": redis_url},
        "identity-key": {"key": base64.b64encode(os.urandom(32)).decode()},
        "identity-tls": {
            "tls.crt": "".join(each.bytes().decode() for each in pair.cert_chain_pems),
            "tls.key": pair.private_key_pem.bytes().decode(),
        },
    }
    values = yaml.safe_load((CHART / "ci/required.yaml").read_text())
    values |= {"migration": {"runRole": run_role}, "drain": {"delaySeconds": 2, "graceSeconds": 5}}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    rendered = render(tmp_path / "values.yaml")

    migrated = Pod(rendered, "Job", tmp_path / "job", secrets).run()
    assert migrated.returncode == 0, migrated.stderr
    pod = Pod(rendered, "Deployment", tmp_path / "pod", secrets)
    process = pod.start()
    try:
        for name in ("startup", "readiness", "liveness"):
            until(lambda name=name: pod.probe(name), SECONDS, f"the {name} probe passes")
        made = pod.command("bootstrap", "--json")
        assert made.returncode == 0, made.stderr
        assert issued(json.loads(made.stdout), ca).count(".") == 2

        process.send_signal(signal.SIGTERM)
        until(lambda: not pod.probe("readiness"), SECONDS, "unready")
        assert pod.probe("liveness"), "it would be restarted while it drains"
        assert process.wait(pod.spec["terminationGracePeriodSeconds"]) == 0
    finally:
        process.kill()
        process.wait()


def issued(account: dict[str, str], ca: trustme.CA) -> str:
    """A token, by TLS at the port of the Service, under the name that the certificate is for."""
    options = [("grpc.ssl_target_name_override", "identity.artstore.svc")]
    credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes())
    with grpc.secure_channel(f"{ADDRESS}:50051", credentials, options) as channel:
        request = token_service_pb2.IssueTokenRequest(grant_type="client_credentials", **account)
        answer = token_service_pb2_grpc.TokenServiceStub(channel).IssueToken(request, timeout=SECONDS)
    token: str = answer.access_token
    return token
