"""`serve`, `bootstrap`, `db upgrade` and `gateway` as real processes."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import stat
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest

from tests.cli.processes import (
    ANY_PORT,
    COMMAND,
    WAIT_SECONDS,
    Running,
    clean_environment,
    credentials,
    embedded,
    run,
)

pytestmark = pytest.mark.slow

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def paste(line: str, folder: Path) -> str:
    """What a line prints when it is pasted into a shell in the folder."""
    done = subprocess.run(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_token(text: str) -> bool:
    return re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", text) is not None


def separate(folder: Path, url: str) -> dict[str, str]:
    """The settings of an installation with a database of its own."""
    return {
        **ANY_PORT,
        "ARTSTORE_DATA_DIR": str(folder / "none"),
        "ARTSTORE_DATABASE_URL": url,
        "ARTSTORE_ISSUER": "https://identity.example",
        "ARTSTORE_KEY_ENCRYPTION_KEY": KEY,
    }


def test_first_start_without_a_terminal(service: Running, service_folder: Path) -> None:
    """The credentials are in a 0600 file, the printed line gets a token when pasted, and nothing printed is secret."""
    file = service_folder / "var" / "administrator.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    secret = credentials(file)["ARTSTORE_CLIENT_SECRET"]
    line = service.found(r"Get a token: (.+)")
    assert is_token(paste(line, service_folder))
    assert secret not in service.output + service.log


def test_later_starts(tmp_path: Path) -> None:
    """A second start makes no other administrator, says how to get a token from where it now listens, and stops
    with 0 on SIGTERM and on SIGINT."""
    with embedded(tmp_path) as first:
        assert first.stop() == 0
    before = (tmp_path / "var" / "administrator.env").read_text()
    with embedded(tmp_path) as second:
        assert "administrator's credentials are" not in second.output
        assert is_token(paste(second.found(r"Get a token: (.+)"), tmp_path))
        assert second.stop(signal.SIGINT) == 0
    assert [path.name for path in (tmp_path / "var").glob("*.env")] == ["administrator.env"]
    assert (tmp_path / "var" / "administrator.env").read_text() == before


def read_terminal(descriptor: int, until: str) -> str:
    """What a terminal shows, up to a text."""
    shown, deadline = "", time.monotonic() + WAIT_SECONDS
    while until not in shown and time.monotonic() < deadline:
        shown += os.read(descriptor, 65_536).decode(errors="replace")
    assert until in shown, shown
    return shown.replace("\r\n", "\n")


def test_first_start_on_a_terminal(tmp_path: Path) -> None:
    """A terminal shows the secret once, with a curl line and a CLI line that work as they are; no file is written."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, "serve"],
        cwd=tmp_path,
        env=clean_environment(**ANY_PORT),
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    try:
        shown = read_terminal(ours, " token\n".replace("\n", "\r\n"))
        line = next(line for line in shown.splitlines() if line.endswith(" token"))
        assert is_token(paste(line, tmp_path))
        curl = shlex.split(next(line for line in shown.splitlines() if line.strip().startswith("curl")))
        client_id, _, secret = curl[curl.index("-u") + 1].partition(":")
        body = {"grant_type": "client_credentials"}
        answer = httpx.post(curl[-1], data=body, auth=(client_id, unquote(secret)))
        assert answer.status_code == 200, answer.text
        assert f"client_secret: {secret}" in shown
        assert list((tmp_path / "var").glob("*.env")) == []
    finally:
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("door", ["grpc", "gateway", "metrics"])
def test_a_taken_port_is_8(service: Running, tmp_path: Path, door: str) -> None:
    """A second start on a taken port fails at once, in one sentence."""
    taken = service.found(rf'"{door}":"([^"]+)"')
    done = run("serve", folder=tmp_path, **(ANY_PORT | {f"ARTSTORE_{door.upper()}_ADDRESS": taken}))
    assert done.returncode == 8, done.stderr
    assert taken in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"ARTSTORE_GRPC_ADDRESS": "50051"},
        {"ARTSTORE_DATABASE_URL": "postgresql://db/identity"},
        {"ARTSTORE_KEY_ENCRYPTION_KEY": "c2hvcnQ="},
        {"ARTSTORE_DATA_DIR": "/dev/null/var"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_invalid_settings_are_10(tmp_path: Path, wrong: dict[str, str]) -> None:
    """Wrong settings refuse to start, in one sentence."""
    done = run("serve", folder=tmp_path, **(ANY_PORT | wrong))
    assert done.returncode == 10, done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_misspelled_settings_are_told(tmp_path: Path) -> None:
    """A variable that nothing reads is a warning, and the command goes on."""
    done = run("db", "upgrade", folder=tmp_path, ARTSTORE_DRAIN_DELY="3")
    assert done.returncode == 0, done.stderr
    assert "ARTSTORE_DRAIN_DELY is no setting of this program; the nearest is ARTSTORE_DRAIN_DELAY." in done.stderr


def test_bootstrap_once(tmp_path: Path) -> None:
    """On the embedded default it prints an administrator's credentials once, and refuses with 3 from then on; the
    service that starts later makes no other."""
    first = run("bootstrap", "--json", folder=tmp_path, **ANY_PORT)
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)
    assert set(made) == {"client_id", "client_secret"}
    second = run("bootstrap", "--json", folder=tmp_path, **ANY_PORT)
    assert (second.returncode, second.stdout) == (3, "")
    assert json.loads(second.stderr.splitlines()[-1])["error"]["reason"] == "ALREADY_BOOTSTRAPPED"
    with started(tmp_path) as running:
        account = {"ARTSTORE_CLIENT_ID": made["client_id"], "ARTSTORE_CLIENT_SECRET": made["client_secret"]}
        target = running.found(r'"grpc":"([^"]+)"')
        assert is_token(run("token", "--target", target, folder=tmp_path, **account).stdout)


def started(folder: Path, **variables: str) -> Running:
    """The service, ready, where no administrator is printed."""
    return Running("serve", folder=folder, until='"event":"ready"', **(ANY_PORT | variables))


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_upgrade_bootstrap_serve(tmp_path: Path, database: str, request: pytest.FixtureRequest) -> None:
    """With a database of its own: nothing starts before `db upgrade` (7), which may be repeated; then bootstrap and
    serve work."""
    url = f"sqlite:///{tmp_path / 'own.db'}"
    if database == "postgresql":
        url = request.getfixturevalue("postgres_empty_url")
    settings = separate(tmp_path, url)
    early = run("bootstrap", folder=tmp_path, **settings)
    assert early.returncode == 7, early.stderr
    assert "db upgrade" in early.stderr
    assert run("serve", folder=tmp_path, **settings).returncode == 7
    for _ in range(2):
        upgraded = run("db", "upgrade", folder=tmp_path, **settings)
        assert upgraded.returncode == 0, upgraded.stderr
    made = json.loads(run("bootstrap", "--json", folder=tmp_path, **settings).stdout)
    assert run("bootstrap", folder=tmp_path, **settings).returncode == 3
    with started(tmp_path, **settings) as running:
        assert "Get a token" not in running.output
        account = {"ARTSTORE_CLIENT_ID": made["client_id"], "ARTSTORE_CLIENT_SECRET": made["client_secret"]}
        target = running.found(r'"grpc":"([^"]+)"')
        assert run("accounts", "list", "--target", target, folder=tmp_path, **account).returncode == 0
        assert running.stop() == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", [["bootstrap"], ["db", "upgrade"]])
def test_a_database_that_is_down_is_8(tmp_path: Path, command: list[str]) -> None:
    """A database that can't be reached is one sentence, without its password."""
    settings = separate(tmp_path, "postgresql://artstore:hunter2@127.0.0.1:1/identity")
    done = run(*command, folder=tmp_path, **settings)
    assert done.returncode == 8, done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_gateway_alone(service: Running, service_folder: Path, tmp_path: Path) -> None:
    """The gateway in a process of its own issues tokens through the service, is ready with it, and stops with 0."""
    account = credentials(service_folder / "var" / "administrator.env")
    target = account["ARTSTORE_TARGET"]
    arguments = ("gateway", "--target", target)
    with Running(*arguments, folder=tmp_path, until="listens on", **ANY_PORT) as running:
        url = running.found(r"listens on (\S+) ")
        answer = httpx.post(
            f"{url}/oauth2/token",
            data={"grant_type": "client_credentials"},
            auth=(account["ARTSTORE_CLIENT_ID"], account["ARTSTORE_CLIENT_SECRET"]),
        )
        assert answer.status_code == 200, answer.text
        assert httpx.get(f"{url}/health/ready").status_code == 200
        assert running.stop() == 0
    assert account["ARTSTORE_CLIENT_SECRET"] not in running.output + running.log


def test_gateway_turns_unready_before_it_closes(service: Running, service_folder: Path, tmp_path: Path) -> None:
    """On SIGTERM readiness goes first, so that balancers notice while requests are still answered."""
    target = credentials(service_folder / "var" / "administrator.env")["ARTSTORE_TARGET"]
    arguments = ("gateway", "--target", target)
    variables = ANY_PORT | {"ARTSTORE_DRAIN_DELAY": "6"}
    with Running(*arguments, folder=tmp_path, until="listens on", **variables) as running:
        url = running.found(r"listens on (\S+) ")
        running.process.terminate()
        answers = (httpx.get(f"{url}/health/ready").status_code for _ in range(1000))
        assert next(status for status in answers if status != 200) == 503
        assert httpx.get(f"{url}/health/live").status_code == 200
        assert running.process.wait(WAIT_SECONDS) == 0


def test_gateway_of_nobody_is_unready(tmp_path: Path) -> None:
    """A gateway whose service can't be reached lives, is unready, and says so in the token endpoint's own words."""
    arguments = ("gateway", "--target", "127.0.0.1:1")
    with Running(*arguments, folder=tmp_path, until="listens on", **ANY_PORT) as running:
        url = running.found(r"listens on (\S+) ")
        assert httpx.get(f"{url}/health/live").status_code == 200
        assert httpx.get(f"{url}/health/ready").status_code == 503
        answer = httpx.post(f"{url}/oauth2/token", data={"grant_type": "client_credentials"}, auth=("a", "b"))
        assert answer.status_code == 503
        assert answer.json()["error"] == "temporarily_unavailable"
