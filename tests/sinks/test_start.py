"""A service with sinks: they are among its parts, and a file that is wrong refuses the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from artstore_grpc.settings import InvalidSettings
from tests.cli import processes
from tests.keys.stand import Installation
from tests.sinks.deliveries import CLIENT_ID, delivery


def sinks_file(folder: Path, places: Path) -> Path:
    path = folder / "sinks.json"
    path.write_text(json.dumps({"sinks": {"disk": {"kind": "files", "folder": str(places)}}}))
    return path


async def test_they_are_parts(sqlite_url: str, tmp_path: Path) -> None:
    """What the settings' file describes is there for whoever rotates; without a file there is none."""
    places = tmp_path / "credentials"
    places.mkdir(mode=0o700)
    installation = Installation(sqlite_url)
    async with installation.process(sinks_file=sinks_file(tmp_path, places)) as process:
        assert process.parts.sinks.names == ("disk",)
        sink = process.parts.sinks.get("disk")
        assert sink is not None
        await sink.deliver(delivery())
    assert [each.name for each in places.iterdir()] == [f"{CLIENT_ID}.json"]
    async with installation.process() as process:
        assert process.parts.sinks.names == ()


async def test_a_file_that_is_wrong(sqlite_url: str, tmp_path: Path) -> None:
    """Refused before anything is read from the database."""
    with pytest.raises(InvalidSettings, match="can't be opened"):
        async with Installation(sqlite_url).process(sinks_file=sinks_file(tmp_path, tmp_path / "missing")):
            pass


@pytest.mark.slow
def test_a_start_is_refused(tmp_path: Path) -> None:
    """The process ends at once, by the exit code of settings, with one sentence and no traceback."""
    path = sinks_file(tmp_path, tmp_path / "missing")
    ended = processes.run("serve", folder=tmp_path, ARTSTORE_SINKS_FILE=str(path), **processes.ANY_PORT)
    assert ended.returncode == 10
    (said,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert f"ARTSTORE_SINKS_FILE: sink disk: The folder {tmp_path}/missing can't be opened" in said
