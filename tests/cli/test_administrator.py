"""The first administrator's credentials reach whoever started the service, once, and nobody else."""

from __future__ import annotations

import shlex
import stat
import sys
from pathlib import Path

import pytest

from artstore_grpc.cli import administrator as first
from artstore_grpc.installation import Administrator
from artstore_grpc.settings import Address

ADMINISTRATOR = Administrator("sa_dev_administrator_00000000", "s3cret-_~.")
GRPC = Address(host="127.0.0.1", port=50051)


def test_file_is_the_owners_only(tmp_path: Path) -> None:
    """The file has mode 0600 and holds what a client needs, as a shell and Docker read it."""
    path = first.write_file(tmp_path, ADMINISTRATOR, GRPC)
    assert path == tmp_path / "administrator.env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    values = dict(line.split("=", 1) for line in path.read_text().splitlines())
    assert {name: shlex.split(value)[0] for name, value in values.items()} == {
        "ARTSTORE_TARGET": "127.0.0.1:50051",
        "ARTSTORE_CLIENT_ID": ADMINISTRATOR.client_id,
        "ARTSTORE_CLIENT_SECRET": ADMINISTRATOR.client_secret,
    }
    assert [entry.name for entry in tmp_path.iterdir()] == ["administrator.env"]


def test_file_is_never_overwritten(tmp_path: Path) -> None:
    """A file of an earlier database stays; the new one has another name, and is the one to use."""
    (tmp_path / "administrator.env").write_text("ARTSTORE_CLIENT_ID=old\n")
    path = first.write_file(tmp_path, ADMINISTRATOR, GRPC)
    assert path.name == f"administrator-{ADMINISTRATOR.client_id}.env"
    assert (tmp_path / "administrator.env").read_text() == "ARTSTORE_CLIENT_ID=old\n"
    assert first.latest_file(tmp_path) == path
    with pytest.raises(FileExistsError):
        first.write_file(tmp_path, ADMINISTRATOR, GRPC)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_file_no_line(tmp_path: Path) -> None:
    """Where there is no file there is nothing to say."""
    assert first.latest_file(tmp_path) is None


def test_paste_line_holds_no_secret(tmp_path: Path) -> None:
    """The line names the file, and the target only where the service has moved since."""
    path = first.write_file(tmp_path, ADMINISTRATOR, GRPC)
    line = first.paste_line(path, GRPC)
    assert line.startswith(f"set -a; . {path}; set +a; ")
    assert line.endswith(" token")
    assert ADMINISTRATOR.client_secret not in line
    moved = first.paste_line(path, Address(host="127.0.0.1", port=50052))
    assert moved.endswith(" token --target 127.0.0.1:50052")


@pytest.mark.parametrize(
    ("host", "client"), [("0.0.0.0", "127.0.0.1:1"), ("::", "[::1]:1"), ("10.0.0.7", "10.0.0.7:1")]
)
def test_reachable(host: str, client: str) -> None:
    """What listens everywhere is called on the loopback."""
    assert str(first.reachable(Address(host=host, port=1))) == client


def test_shown_once_has_both_lines() -> None:
    """A terminal gets the credentials, a curl line and a CLI line with real values."""
    said = first.shown_once(ADMINISTRATOR, GRPC, Address(host="127.0.0.1", port=8080))
    pair = f"{ADMINISTRATOR.client_id}:{ADMINISTRATOR.client_secret}"
    assert f"curl -d grant_type=client_credentials -u {shlex.quote(pair)} http://127.0.0.1:8080/oauth2/token" in said
    assert f"ARTSTORE_CLIENT_ID={ADMINISTRATOR.client_id} " in said
    assert "curl" not in first.shown_once(ADMINISTRATOR, GRPC, None)


def test_command_line_from_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is named so that it runs from the present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nonexistent")
    for argument, line in (
        (tmp_path / ".venv/bin/artstore-grpc", ".venv/bin/artstore-grpc"),
        (".venv/bin/artstore-grpc", ".venv/bin/artstore-grpc"),
        (tmp_path / "artstore-grpc", "./artstore-grpc"),
        ("/opt/my tools/artstore-grpc", "'/opt/my tools/artstore-grpc'"),
        (tmp_path / "main.py", "artstore-grpc"),
    ):
        monkeypatch.setattr(sys, "argv", [str(argument), "serve"])
        assert first.command_line() == line


def test_command_line_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that the shell finds is named by its name."""
    command = tmp_path / "artstore-grpc"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(command), "serve"])
    assert first.command_line() == "artstore-grpc"
