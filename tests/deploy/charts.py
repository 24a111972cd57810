"""The chart as Helm renders it; the Helm is the one that `make lint` uses, in build/charts."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/artstore-identity"
PYTHON = ROOT / "build/charts/bin/python"


@dataclass(frozen=True)
class Rendered:
    """What a file of values makes."""

    objects: list[dict[str, Any]]

    def one(self, kind: str, name: str = "") -> dict[str, Any]:
        """The object of a kind; where there are several, the one whose name ends so."""
        found = [each for each in self.objects if each["kind"] == kind and each["metadata"]["name"].endswith(name)]
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    def kinds(self) -> set[str]:
        return {each["kind"] for each in self.objects}

    def pod(self, kind: str = "Deployment") -> dict[str, Any]:
        spec: dict[str, Any] = self.one(kind)["spec"]["template"]["spec"]
        return spec

    def container(self, kind: str = "Deployment") -> dict[str, Any]:
        (found,) = self.pod(kind)["containers"]
        assert isinstance(found, dict)
        return found


def check(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """deploy/helm/check.py, in the environment that has Helm."""
    assert PYTHON.exists(), "the chart's tools are missing: make build/charts/.installed"
    program = [str(PYTHON), str(ROOT / "deploy/helm/check.py"), *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@cache
def render(values: Path) -> Rendered:
    done = check("--render", values)
    assert not done.returncode, done.stderr
    return Rendered(json.loads(done.stdout))


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    """Its variables; what Kubernetes itself fills in is as it would in a pod at 127.0.0.1."""
    given = {each["name"]: each.get("value", "127.0.0.1") for each in container["env"]}
    return {name: re.sub(r"\$\((\w+)\)", lambda match: given[match[1]], value) for name, value in given.items()}
