"""The pins satisfy what the distributions ask for, agree with each other, and are hashed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
LOCKS = {path.stem: path for path in sorted(REQUIREMENTS.glob("*.txt"))}
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)(.*)")
OURS = {"artstore-grpc", "artstore-identity"}


def pins(lock: Path) -> dict[str, str]:
    """The pinned versions of a lock by name."""
    found: dict[str, str] = {}
    for line in lock.read_text().splitlines():
        if match := PIN.match(line):
            found[canonicalize_name(match[1])] = match[2]
    return found


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())
    return found


def asked(name: str) -> list[Requirement]:
    """What a lock is made from."""
    if name == "run":
        both = [project(folder)["project"]["dependencies"] for folder in (ROOT, ROOT / "clients/python")]
        wanted = [Requirement(each) for each in both[0] + both[1]]
        return [each for each in wanted if each.name not in OURS]
    lines = (line.partition("#")[0].strip() for line in (REQUIREMENTS / f"{name}.in").read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


@pytest.mark.parametrize("name", LOCKS)
def test_pins_satisfy_what_was_asked(name: str) -> None:
    """A dependency that was added or raised is locked again: `make lock`."""
    held = pins(LOCKS[name])
    for wanted in asked(name):
        version = held.get(canonicalize_name(wanted.name))
        assert version, f"requirements/{name}.txt lacks {wanted.name}: run `make lock`"
        assert wanted.specifier.contains(version, prereleases=True), f"{wanted} is pinned at {version}: run `make lock`"


def test_run_and_dev_agree() -> None:
    """They share one environment."""
    run, dev, build = (pins(LOCKS[name]) for name in ("run", "dev", "build"))
    together = [*run.items(), *dev.items(), *build.items()]
    versions: dict[str, set[str]] = {}
    for name, version in together:
        versions.setdefault(name, set()).add(version)
    assert not {name: found for name, found in versions.items() if len(found) > 1}


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_is_hashed_and_no_registry_is_named(name: str) -> None:
    text = LOCKS[name].read_text()
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--[a-z-]*(url|links|host))", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("folder", "package"),
    [(ROOT, "artstore_grpc"), (ROOT / "clients/python", "artstore")],
    ids=["server", "client"],
)
def test_what_is_imported_is_declared(folder: Path, package: str) -> None:
    """Each distribution names what it imports itself, rather than leaning on what others happen to bring. What is an
    extra is imported by the one module that is for it (`httpx_auth`, `redis_replicas`), so that others run without."""
    declared = {canonicalize_name(Requirement(each).name) for each in project(folder)["project"]["dependencies"]}
    extras = set(project(folder)["project"].get("optional-dependencies", {}))
    owners = packages_distributions()
    for path in (folder / package).rglob("*.py"):
        for module in imports(path):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names or top in {"artstore_grpc", "__future__"}:
                continue
            if top == "artstore":
                assert package == "artstore" or "artstore-identity" in declared
                continue
            if top in extras and path.stem in (f"{top}_auth", f"{top}_replicas"):
                continue
            held = {canonicalize_name(each) for each in owners.get(top, [])}
            assert held & declared, f"{path.relative_to(ROOT)} imports {module}, which no dependency of it declares"


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found
