"""The recipes of clients/README.md: how stubs are made for a language, and its example run, in lines of shell.

`make interop` runs what the README says, so neither can be right alone. Works in a copy of the tree, and keeps what is
downloaded in build/interop-langs, so that nothing is left among the sources or in the home folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "clients/README.md"
KEPT = ROOT / "build/interop-langs"
SECONDS = 900
"""A first run compiles the plugins and gRPC: two minutes and a half on two busy cores."""

LANGUAGES = ("Go", "TypeScript")
GO_FOLDER = "/usr/local/go/bin"
"""Where Go's own installation puts it, which is often not on the PATH."""

LEFT = shutil.ignore_patterns("gen", "dist", "node_modules", "python")


def recipe(language: str, text: str | None = None) -> list[str]:
    """The lines under a language's heading; LookupError where there are none, or more than one block of them."""
    sections = re.split(r"^## ", text or README.read_text(), flags=re.MULTILINE)
    blocks = [
        re.findall(r"^```sh\n(.*?)^```", each, re.M | re.S) for each in sections if each.startswith(f"{language}\n")
    ]
    if [len(each) for each in blocks] != [1]:
        raise LookupError(f"{README} should have one recipe for {language}")
    return str(blocks[0][0]).splitlines()


def search_path(path: str) -> str:
    """The PATH with Go's folder after what it has."""
    return os.pathsep.join([path, GO_FOLDER])


def copy(tree: Path) -> None:
    """What the recipes need of the repository: the protos, those of google, the clients and buf."""
    shutil.copytree(ROOT / "protos", tree / "protos")
    shutil.copytree(ROOT / "clients", tree / "clients", ignore=LEFT)
    shutil.copyfile(ROOT / "buf.yaml", tree / "buf.yaml")
    vendor = [ROOT / "build/proto/bin/python", "protos/generate.py", "--vendor", "build/googleapis"]
    subprocess.run(vendor, cwd=tree, check=True)
    (tree / ".venv/bin").mkdir(parents=True)
    (tree / ".venv/bin/buf").symlink_to(Path(sys.executable).parent / "buf")


def surroundings(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a recipe: `given`, and every cache in build/interop-langs."""
    kept = {
        "GOMODCACHE": KEPT / "go-modules",
        "GOCACHE": KEPT / "go-cache",
        "BUF_CACHE_DIR": KEPT / "buf",
        "npm_config_cache": KEPT / "npm",
    }
    quiet = {"npm_config_audit": "false", "npm_config_fund": "false", "npm_config_update_notifier": "false"}
    # Go makes its modules read-only, and then `make clean` fails.
    go = {"GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()}
    path = {"PATH": search_path(os.environ.get("PATH", ""))}
    return os.environ | path | go | quiet | {name: str(folder) for name, folder in kept.items()} | given


def run(lines: list[str], tree: Path, given: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs lines of shell at the root of a copy until one fails; what they print is kept."""
    return subprocess.run(
        ["sh", "-e", "-c", "\n".join(lines)],
        cwd=tree,
        env=surroundings(given),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
