"""What a reader of the documents has: a service started as `make run` does, and a shell to paste lines into."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cli.processes import clean_environment

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CREDENTIALS = "set -a; . var/administrator.env; set +a\n"

CURL = f"""#!{sys.executable}
# Stands in for curl on a machine without one: -d, -u, -H, -i and an address.
import base64, sys, urllib.error, urllib.request
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
    elif word != "-i":
        url = word
try:
    print(urllib.request.urlopen(urllib.request.Request(url, body, headers)).read().decode())
except urllib.error.HTTPError as error:
    print("HTTP/1.1", error.code, error.reason)
"""


@dataclass(frozen=True)
class Service:
    """A service that was started as `make run` does, in a folder of its own."""

    folder: Path
    grpc: str
    gateway: str
    others: dict[str, str] = field(default_factory=dict)
    """What else the documents' text stands for here, such as another port."""

    def here(self, text: str) -> str:
        """The documents' text with this service's addresses."""
        known = {"127.0.0.1:50051": self.grpc, "127.0.0.1:8080": self.gateway, ".venv/bin/": f"{BIN}/", **self.others}
        for documented, real in known.items():
            text = text.replace(documented, real)
        return text

    def environment(self) -> dict[str, str]:
        return clean_environment(PATH=f"{self.folder / 'bin'}:{BIN}:{os.environ['PATH']}")

    def paste(self, shell: str, credentials: str = CREDENTIALS) -> str:
        """Runs lines of a document in a shell, at this service's addresses."""
        result = subprocess.run(
            ["sh", "-euc", credentials + self.here(shell)],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert not result.returncode, result.stdout + result.stderr
        return result.stdout


def blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks of a document: language and lines."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@contextmanager
def started(folder: Path) -> Iterator[Service]:
    """The embedded default, at any free ports, its first start seen through."""
    if not shutil.which("curl"):
        (folder / "bin").mkdir()
        (folder / "bin/curl").write_text(CURL)
        (folder / "bin/curl").chmod(0o755)
    addresses = {f"ARTSTORE_{door}_ADDRESS": "127.0.0.1:0" for door in ("GRPC", "GATEWAY", "METRICS")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "artstore-grpc", "serve"],
            cwd=folder,
            env=clean_environment(**addresses),
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
