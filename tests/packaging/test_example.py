"""The first token in a minute: what README.md says to paste, pasted."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CREDENTIALS = "set -a; . var/administrator.env; set +a\n"

CURL = f"""#!{sys.executable}
# Stands in for curl on a machine without one: -d, -u, -H and an address.
import base64, sys, urllib.request
words, headers, body, url = sys.argv[1:], {{}}, None, ""
while words:
    word = words.pop(0)
    if word == "-d":
        body = words.pop(0).encode()
    elif word == "-u":
        headers["authorization"] = "Basic " + base64.b64encode(words.pop(0).encode()).decode()
    elif word == "-H":
        name, _, value = words.pop(0).partition(": ")
        headers[name] = value
    else:
        url = word
print(urllib.request.urlopen(urllib.request.Request(url, body, headers)).read().decode())
"""


@dataclass(frozen=True)
class Service:
    """A service that was started as `make run` does, in a folder of its own."""

    folder: Path
    grpc: str
    gateway: str

    def paste(self, shell: str) -> str:
        """Runs lines of the README in a shell, at this service's addresses."""
        lines = shell.replace("127.0.0.1:50051", self.grpc).replace("127.0.0.1:8080", self.gateway)
        lines = lines.replace(".venv/bin/", f"{BIN}/")
        path = f"{self.folder / 'bin'}:{BIN}:{os.environ['PATH']}"
        result = subprocess.run(
            ["sh", "-euc", CREDENTIALS + lines],
            cwd=self.folder,
            env=clean() | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not result.returncode, result.stderr
        return result.stdout


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ARTSTORE_")}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The embedded default, at any free ports, its first start seen through."""
    folder = tmp_path_factory.mktemp("embedded")
    if not shutil.which("curl"):
        (folder / "bin").mkdir()
        (folder / "bin/curl").write_text(CURL)
        (folder / "bin/curl").chmod(0o755)
    addresses = {f"ARTSTORE_{door}_ADDRESS": "127.0.0.1:0" for door in ("GRPC", "GATEWAY", "METRICS")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "artstore-grpc", "serve"],
            cwd=folder,
            env=clean() | addresses,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout
        said = process.stdout.readline()
        assert "var/administrator.env" in said, said + (folder / "log").read_text()
        lines = (json.loads(line) for line in (folder / "log").read_text().splitlines())
        listening = next(line for line in lines if line["event"] == "listening")
        yield Service(folder, listening["grpc"], listening["gateway"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 0


def blocks() -> list[tuple[str, str]]:
    """The example's blocks: language and lines."""
    found = re.search(r"<!-- example: begin -->(.*?)<!-- example: end -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return re.findall(r"```(\w+)\n(.*?)```", found[1], re.DOTALL)


def shell(part: str) -> str:
    return next(lines for language, lines in blocks() if language == "sh" and part in lines)


def claims(token: str) -> dict[str, object]:
    found: dict[str, object] = jwt.decode(token.strip(), options={"verify_signature": False})
    return found


def test_by_the_command_line(service: Service) -> None:
    decoded = json.loads(service.paste(shell("token --decode")))
    assert decoded["header"]["typ"] == "at+jwt"
    assert decoded["claims"]["aud"] == "artstore"


def test_by_curl(service: Service) -> None:
    answer = json.loads(service.paste(shell("grant_type")))
    assert answer["token_type"] == "Bearer"
    assert claims(answer["access_token"])["role"] == "admin"


def test_by_python(service: Service) -> None:
    script = next(lines for language, lines in blocks() if language == "python")
    assert claims(service.paste(f".venv/bin/python - <<'END'\n{script}END\n"))["role"] == "admin"


def test_an_account_by_the_command_line(service: Service) -> None:
    assert "client_secret" in service.paste(shell("accounts create"))


def test_an_account_by_rest(service: Service) -> None:
    """As the README has it, with a token made for the issuer."""
    answer = json.loads(service.paste(shell("TOKEN=")))
    assert answer["service_account"]["name"] == "query"
    assert answer["client_secret"]


def test_every_block_is_tried() -> None:
    assert len(blocks()) == 5
