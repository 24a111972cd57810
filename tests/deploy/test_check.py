"""deploy/helm/check.py sees mistakes in a chart, which `make lint` would otherwise let through."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.charts import PYTHON, ROOT, check

pytestmark = pytest.mark.slow


def test_a_chart_in_order_is_one_line() -> None:
    """Helm's own log has nothing to add to it."""
    done = check()
    assert (done.returncode, done.stdout, done.stderr) == (0, "The chart renders what Kubernetes takes.\n", "")


@pytest.mark.parametrize(
    ("file", "right", "mistaken", "said"),
    [
        ("deployment.yaml", "periodSeconds: 10", "periodSecond: 10", "periodSecond"),
        ("deployment.yaml", "containerPort: 8086", "containerPort: probes", "'probes' is not of type"),
        ("scaling.yaml", "minReplicas:", "leastReplicas:", "leastReplicas"),
        ("monitoring.yaml", "  endpoints:", "  endpoint:", "spec.endpoint is not known"),
        ("monitoring.yaml", '| replace "_" "-"', "", "its name is none"),
        ("services.yaml", "-headless", "", "is there twice"),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, file: str, right: str, mistaken: str, said: str) -> None:
    """A field that nobody knows, a value of the wrong type, a name that is none; in Kubernetes' kinds and others'."""
    folder = tmp_path / "helm"
    shutil.copytree(ROOT / "deploy/helm", folder)
    template = folder / "artstore-identity/templates" / file
    text = template.read_text()
    assert right in text
    template.write_text(text.replace(right, mistaken))
    done = subprocess.run([PYTHON, folder / "check.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert said in done.stdout
