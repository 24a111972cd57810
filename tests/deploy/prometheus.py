"""A real Prometheus over real replicas, where one is found: on the PATH, or unpacked by deploy/prometheus/check.sh."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deploy.rules import ROOT, RULES
from tests.processes.balancer import free_ports
from tests.processes.service import until

FETCHED = ROOT / "build/prometheus/usr/bin/prometheus"
START_SECONDS = 60.0
CALL_SECONDS = 60.0
STOP_SECONDS = 30.0


class Refused(Exception):
    """Prometheus would not evaluate a query; its own sentence."""


def found() -> str | None:
    """The program, where there is one."""
    return shutil.which("prometheus") or (str(FETCHED) if FETCHED.exists() else None)


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    def asked(self, path: str, **parameters: str) -> Any:
        """The data of an answer. Raises Refused."""
        asked = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(asked, timeout=CALL_SECONDS) as got:
                return json.load(got)["data"]
        except urllib.error.HTTPError as error:
            raise Refused(json.load(error)["error"]) from None

    def query(self, query: str) -> list[dict[str, Any]]:
        """What a query is now."""
        answer = self.asked("query", query=query)
        result = answer["result"]
        return result if answer["resultType"] == "vector" else [{"metric": {}, "value": result}]

    @property
    def ready(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=CALL_SECONDS).close()
        except OSError:
            return False
        return True


@contextmanager
def watching(folder: Path, targets: Sequence[str], *, interval: str = "1s") -> Iterator[Prometheus]:
    """A Prometheus that scrapes these targets as replica-1, replica-2 and so on, by the rules of deploy/prometheus."""
    program = found()
    assert program is not None
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        {"targets": [target], "labels": {"instance": f"replica-{number}"}} for number, target in enumerate(targets, 1)
    ]
    settings = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(rules_at(folder, interval))],
        "scrape_configs": [{"job_name": "artstore-identity", "static_configs": jobs}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML
    (port,) = free_ports(1)  # it doesn't tell which one it takes
    address = f"127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/data",
                f"--web.listen-address={address}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        made = Prometheus(f"http://{address}")
        until(lambda: made.ready or process.poll() is not None, START_SECONDS, "ready")
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield made
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def rules_at(folder: Path, interval: str) -> Path:
    """The rules, evaluated as often as it is scraped."""
    copy = folder / "rules.yml"
    copy.write_text(RULES.read_text().replace("interval: 30s", f"interval: {interval}"))
    return copy
