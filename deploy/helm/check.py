"""Renders the chart with Helm itself, for each file of values in ci/, and checks what comes out (`make lint`).

Runs in the environment of requirements/charts.txt, where Helm is a library and the Kubernetes schemas are files: no
cluster and no network. Kinds that Kubernetes itself lacks have no schema there; of those SHAPES says what must be.

    check.py                        checks, and exits 1 with what is wrong
    check.py --render VALUES.yaml   prints what that file renders, as JSON, for the tests
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import helm_python as helm
import kubernetes_validate
import yaml
from kubernetes_validate.utils import SchemaNotFoundError, ValidationError

CHART = Path(__file__).resolve().parent / "artstore-identity"
VERSIONS = ("1.27", "1.37")
"""Of Kubernetes: the oldest that the chart says it runs on, and the newest whose schemas are pinned."""

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""RFC 1123's, which every kind here takes; the schemas don't look at it."""
MAX_BYTES = 1_000_000
"""A ConfigMap holds at most 1 MiB, and so does the Secret, compressed, in which Helm keeps a release."""

SHAPES: dict[str, dict[str, Any]] = {
    "monitoring.coreos.com/v1 ServiceMonitor": {"selector": dict, "endpoints": list},
    "monitoring.coreos.com/v1 PrometheusRule": {"groups": list},
    "gateway.networking.k8s.io/v1 HTTPRoute": {"parentRefs": list, "hostnames": list, "rules": list},
}
"""What the `spec` of a custom resource consists of, all of it; the rest of such a resource is metadata."""


def rendered(folder: Path, values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object with the template that it came from."""
    with helm.Chart.load(folder) as chart:
        chart.validate_schema(values)
        manifests = chart.render(values, name="identity", namespace="artstore")
    for path, text in sorted(manifests.items()):
        if path.endswith(".yaml"):
            yield from ((path, each) for each in yaml.safe_load_all(text) if each)


def values_of(path: Path) -> dict[str, Any]:
    return helm.values_from_yaml(path.read_text())


def wrong(resource: dict[str, Any]) -> Iterator[str]:
    """What Kubernetes would refuse of an object."""
    if not NAME.fullmatch(resource["metadata"]["name"]):
        yield "its name is none"
    if len(json.dumps(resource)) > MAX_BYTES:
        yield f"is of more than {MAX_BYTES:,} bytes"
    shape = SHAPES.get(f"{resource['apiVersion']} {resource['kind']}")
    if shape is not None:
        yield from misshapen(resource, shape)
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        except ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
        except SchemaNotFoundError as error:
            yield error.message


def misshapen(resource: dict[str, Any], shape: dict[str, type]) -> Iterator[str]:
    if set(resource) != {"apiVersion", "kind", "metadata", "spec"}:
        yield f"has the keys {sorted(resource)}"
    for name, value in resource.get("spec", {}).items():
        if name not in shape:
            yield f"spec.{name} is not known"
        elif not isinstance(value, shape[name]) or not value:
            yield f"spec.{name} must be a {shape[name].__name__} that isn't empty"


def problems(folder: Path) -> Iterator[str]:
    for path in sorted((CHART / "ci").glob("*.yaml")):
        values = values_of(path)
        report = helm.lint(folder, values, strict=True, kube_version=f"v{VERSIONS[-1]}.0")
        yield from (f"{path.name}: helm lint: {each}" for each in report["errors"])
        yield from (
            f"{path.name}: helm lint: {m['path']}: {m['error']}" for m in report["messages"] if m["severity"] > 1
        )
        seen = set()
        for template, each in rendered(folder, values):
            name = f"{each['kind']}/{each['metadata'].get('namespace', '')}/{each['metadata']['name']}"
            yield from (f"{path.name}: {template}: {name}: {said}" for said in wrong(each))
            if name in seen:
                yield f"{path.name}: {template}: {name} is there twice"
            seen.add(name)


def main() -> None:
    with TemporaryDirectory() as temporary:
        # Links become what they lead to, as in a package: of each Helm would tell whenever it loads the chart.
        run(shutil.copytree(CHART, Path(temporary) / CHART.name))


def run(folder: Path) -> None:
    if sys.argv[1:2] == ["--render"]:
        values = values_of(Path(sys.argv[2]))
        json.dump([each for _, each in rendered(folder, values)], sys.stdout)
        return
    found = list(problems(folder))
    sys.stdout.write("".join(f"{each}\n" for each in found) or "The chart renders what Kubernetes takes.\n")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
