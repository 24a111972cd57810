"""clients/python/README.md: its programs run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.client_library.conftest import credentials_file
from tests.installation import Installation
from tests.processes.service import CALL_SECONDS, until

README = Path(__file__).resolve().parents[2] / "clients/python/README.md"
RUNNING = re.compile(r"running on (http://127\.0\.0\.1:\d+)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The README's files, each named by its first line."""
    found = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL))
    for name in ("files.py", "thumbnails.py", "whoami.py"):
        (tmp_path / name).write_text(found[name])
    return tmp_path


@contextmanager
def serving(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """files.py by uvicorn; where it is."""
    command = [sys.executable, "-m", "uvicorn", "files:app", "--host", "127.0.0.1", "--port", "0"]
    log = folder / "log"
    with log.open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        try:
            yield until(lambda: RUNNING.search(log.read_text()), CALL_SECONDS, "it serves")[1]
        finally:
            process.terminate()
            process.wait(CALL_SECONDS)


def test_a_service_and_its_caller(folder: Path, service: Installation) -> None:
    """The task gets its thumbnail by a token; without one it is 401, for a route that the table lacks too."""
    files, caller = service.account("readonly"), service.account("readonly")
    shared = os.environ | {"ARTSTORE_TARGET": str(service.started.grpc_address)}
    mine = {"ISSUER": service.issuer, "CREDENTIALS": str(credentials_file(folder / "files.json", service, files))}
    with serving(folder, shared | mine) as url:
        theirs = {"CREDENTIALS": str(credentials_file(folder / "caller.json", service, caller)), "FILES": url}
        task = "import thumbnails; print(thumbnails.make_thumbnail('a.png'))"
        command = [sys.executable, "-W", "error", "-c", task]
        ran = subprocess.run(command, cwd=folder, env=shared | theirs, capture_output=True, text=True, check=False)
        assert ran.stdout.startswith("a.png, for "), ran.stderr
        refused = httpx.get(f"{url}/files/a.png", trust_env=False)
        assert (refused.status_code, refused.headers["www-authenticate"].split(" ")[0]) == (401, "Bearer")
        assert httpx.get(f"{url}/docs", trust_env=False).status_code == 401


def test_a_client_that_looks_in_redis(folder: Path, redis_url: str) -> None:
    """The caller finds the service by its registration, and is told its own name."""
    with Installation(folder / "service", redis_url=redis_url) as service:
        me = service.account("readonly", served_audiences=["artstore"])
        places = {"REPLICAS": redis_url, "CREDENTIALS": str(credentials_file(folder / "me.json", service, me))}
        command = [sys.executable, "-W", "error", "whoami.py"]
        ran = subprocess.run(command, cwd=folder, env=os.environ | places, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == me.message.name, ran.stderr
