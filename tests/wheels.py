"""Wheels of the two packages, built and installed without the network, and commands run in such an environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Runs a command as somebody without our environment; returns its output, fails with both outputs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ARTSTORE_", "PYTHON"))}
    result = subprocess.run(
        [str(each) for each in command], cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False
    )
    assert not result.returncode, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


def pip(*arguments: str | Path, cwd: Path) -> None:
    run(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=cwd)


def built(out: Path, *sources: Path) -> dict[str, Path]:
    """The wheels of some source trees, by distribution."""
    out.mkdir(parents=True, exist_ok=True)
    for source in sources:
        pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, source, cwd=out)
    return {path.name.split("-")[0]: path for path in out.glob("*.whl")}


def environment(folder: Path, *wheels: Path) -> Path:
    """The Python of an environment with some wheels; what they depend on is lent by the environment of the tests."""
    folder.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin/python"
    pip("--python", python, "install", "--quiet", "--no-deps", "--no-index", *wheels, cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # Only a folder on the path: the .pth files in it, the editable install of the source tree, are not followed.
    (Path(site) / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python
