"""The tutorial, done: each block of docs/tutorial.md in its order, as a reader pastes it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.packaging.embedded import ROOT, Service, blocks, started

TUTORIAL = ROOT / "docs" / "tutorial.md"
STORAGE = "127.0.0.1:8001"
START_SECONDS = 30.0


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What each block of commands printed."""
    with ExitStack() as stack:
        service = stack.enter_context(started(tmp_path_factory.mktemp("tutorial")))
        yield list(done(moved(service), stack))


def moved(service: Service) -> Service:
    """The same, with the storage element at a free port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return replace(service, others={STORAGE: f"127.0.0.1:{port}", "--port 8001": f"--port {port}"})


def done(service: Service, stack: ExitStack) -> Iterator[str]:
    """Does what the tutorial says, block by block: saves the programs, starts the server, runs the rest."""
    for language, lines in blocks(TUTORIAL.read_text()):
        if language == "python":
            path = service.folder / lines.partition("\n")[0].removeprefix("# ")
            path.write_text(service.here(lines))
        elif "uvicorn" in lines:
            stack.enter_context(served(service, lines))
        elif lines != "make run\n":  # done by the fixture, but for the installation
            yield service.paste(lines)


@contextmanager
def served(service: Service, lines: str) -> Iterator[None]:
    """The storage element, until the end; it answers when this goes on."""
    command = ["sh", "-euc", f"exec env {service.here(lines)}"]
    with (service.folder / "storage.log").open("w") as log:
        process = subprocess.Popen(command, cwd=service.folder, env=service.environment(), stdout=log, stderr=log)
    try:
        wait_for(f"http://{service.here(STORAGE)}/", process, service.folder / "storage.log")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until something answers there."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_administrators_token(said: list[str]) -> None:
    """The first token says who it is for."""
    assert json.loads(said[0])["claims"]["role"] == "admin"


def test_two_accounts(said: list[str]) -> None:
    """Both are listed, and no secret was shown."""
    assert re.findall(r"(ingester|storage) +(user|readonly) +active", said[1]) == [
        ("ingester", "user"),
        ("storage", "readonly"),
    ]
    assert "artstore_" not in said[1]


def test_the_call(said: list[str]) -> None:
    """The storage element names its caller, and lets nobody in without a token."""
    assert said[2] == "200 cat.jpg, for ingester\n"
    assert said[3].startswith("HTTP/1.1 401")


def test_the_rotation(said: list[str]) -> None:
    """The secret is another one, and the service goes on with it."""
    assert said[4] == "another secret is in the file: True\n200 cat.jpg, for ingester\n"


def test_the_revocation(said: list[str]) -> None:
    """The token was good, and is refused within a second of the answer, as the contract says."""
    before, after = said[5].splitlines()
    assert before == "before: 200"
    assert int(re.findall(r"refused (\d+) ms", after)[0]) < 1000


def test_the_suspension(said: list[str]) -> None:
    """A suspended service gets no token, and the ledger has it all, and verifies."""
    assert "no token for a suspended account" in said[6]
    assert "account.suspended" in said[6]
    assert "token.revoked" in said[6]
    assert "secret.rotated" in said[6]


def test_every_block_is_done(said: list[str]) -> None:
    assert len(said) == 7
