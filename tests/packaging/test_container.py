"""The container's least power: what the files that make and run it say, and that the service writes nowhere else."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import clean_environment
from tests.packaging.test_docs import compose, text

WATCHED = """
import os, sys
allowed = tuple(sys.argv[1].split(":"))
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate", "sqlite3.connect"):
        path, writes = arguments[0], True
    else:
        return
    path = os.path.abspath(os.fsdecode(path).removeprefix("file:").partition("?")[0])
    if writes and not path.startswith(allowed):
        os.write(2, f"WROTE {event} {path}\\n".encode())
sys.dont_write_bytecode = True
sys.addaudithook(watch)
from artstore_grpc.cli.main import main
main(sys.argv[2:])
"""
"""The program; it tells of each file that it opens to write, makes or deletes outside the folders that are allowed."""


def test_the_service_writes_its_own_folder_only(tmp_path: Path) -> None:
    """From its first start to its stop: a read-only root with DATA_DIR and /tmp is enough."""
    environment = clean_environment(
        ARTSTORE_DATA_DIR=str(tmp_path / "data"),
        ARTSTORE_GRPC_ADDRESS="127.0.0.1:0",
        ARTSTORE_GATEWAY_ADDRESS="127.0.0.1:0",
        ARTSTORE_METRICS_ADDRESS="127.0.0.1:0",
        ARTSTORE_BCRYPT_COST="4",
    )
    allowed = f"{tmp_path / 'data'}:/dev/"
    with subprocess.Popen(
        [sys.executable, "-B", "-c", WATCHED, allowed, "serve"],
        cwd="/",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if '"event":"ready"' in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert any('"event":"stopped"' in line for line in said)
    assert not [line for line in said if line.startswith("WROTE")]
    assert (tmp_path / "data" / "identity.db").exists()


def test_the_watch_sees(tmp_path: Path) -> None:
    """The test above would fail: another folder is told."""
    said = subprocess.run(
        [sys.executable, "-B", "-c", WATCHED, "/nowhere", "db", "upgrade"],
        cwd=tmp_path,
        env=clean_environment(ARTSTORE_DATA_DIR=str(tmp_path / "data")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0
    assert "WROTE" in said.stderr


def test_the_image_is_nobody() -> None:
    """Not root, by number, so that Kubernetes can tell (runAsNonRoot); no secret and no privileged port."""
    image = text("Dockerfile")
    user = re.findall(r"^USER (\d+):(\d+)$", image, re.MULTILINE)
    assert user
    assert all(int(number) > 0 for pair in user for number in pair)
    assert image.rindex("USER ") > image.rindex("RUN ")
    assert not re.findall(r"^(?:ENV|ARG) .*(?:PASSWORD|SECRET|KEY|_URL)", image, re.MULTILINE)
    assert all(int(port) >= 1024 for line in re.findall(r"^EXPOSE (.*)$", image, re.MULTILINE) for port in line.split())


@pytest.mark.parametrize("name", ["identity", "identity-2", "migrate"])
def test_compose_gives_no_power(name: str) -> None:
    """A read-only root, no capabilities, no new privileges; what may be written is a tmpfs."""
    service: dict[str, Any] = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == ["/tmp"]
    assert not service.get("privileged")
    assert not service.get("volumes")
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_compose_splits_the_roles() -> None:
    """The service is not given the URL of the role that migrates."""
    services = compose()["services"]
    assert "migrate_database_url" not in str(services["identity"])
    assert services["migrate"]["environment"]["ARTSTORE_DATABASE_URL_FILE"] == "/run/secrets/migrate_database_url"
    assert "postgres_run_role.sh" in str(services["postgres"]["volumes"])
