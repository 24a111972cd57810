"""The release before this one, built from the repository's own history and installed in an environment of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

from tests.wheels import ROOT, built, environment, run

SOURCES = ("artstore_grpc", "clients/python", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md")


@dataclass(frozen=True)
class Release:
    """What was built: its version, and the Python that has it."""

    version: str
    python: Path

    @property
    def command(self) -> list[str]:
        """`artstore-grpc` of that release."""
        return [str(self.python), "-m", "artstore_grpc.cli.main"]


def git(*arguments: str) -> bytes:
    """Raises CalledProcessError."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


def previous_commit() -> str:
    """The commit of the last release before the one at hand: what its tag names, or where tags were not fetched the
    commit with that subject. Skips where this copy has no git or not the whole history; where it has, there is one."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this copy has no history to build the release before this one from")
    try:
        return git("describe", "--tags", "--abbrev=0", "--match=v[0-9]*", "HEAD^").decode().strip()
    except subprocess.CalledProcessError:
        if git("rev-parse", "--is-shallow-repository").strip() == b"true":
            pytest.skip("this copy's history is shallow, and has no tag of the release before this one")
        said = git("log", "-1", "--format=%H", "--extended-regexp", "--grep=^release: [0-9]+[.][0-9]+", "HEAD^")
        assert said, "the history is whole, and has no release"
        return said.decode().strip()


def previous_release(folder: Path) -> Release:
    """Built in a folder. What it depends on is lent by the environment of the tests, its own two packages are not."""
    source = folder / "source"
    with tarfile.open(fileobj=BytesIO(git("archive", previous_commit(), *SOURCES))) as archive:
        archive.extractall(source, filter="data")
    declared = re.search(r'^version = "(.*)"$', (source / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared
    wheels = built(folder / "wheels", source / "clients/python", source)
    release = Release(declared[1], environment(folder / "environment", *wheels.values()))
    check(release, folder)
    return release


def check(release: Release, folder: Path) -> None:
    """That it is what runs there: both packages, and the version that the command tells."""
    script = "import artstore_grpc, artstore.identity as i; print(artstore_grpc.__file__, i.__file__, sep='\\n')"
    for file in run(release.python, "-c", script, cwd=folder).split():
        assert Path(file).is_relative_to(folder / "environment"), file
    assert release.version in run(*release.command, "--version", cwd=folder)
