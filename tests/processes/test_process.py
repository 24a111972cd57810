"""What the process of the service asks of the system and of Python, and nobody sees from outside."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil
import pytest

from artstore_grpc.cli.loop import COLLECTIONS, OTHER_FILES
from tests.processes.service import Installation, Service, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CONNECTIONS = 100
TELLS = """
import gc, resource, sys, threading, time
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
def tell():
    while not gc.get_freeze_count():
        time.sleep(0.05)
    time.sleep(0.05)
    print("COLLECTOR", gc.get_freeze_count(), *gc.get_threshold(), file=sys.stderr, flush=True)
threading.Thread(target=tell, daemon=True).start()
from artstore_grpc.cli.main import main
main(["serve"])
"""
"""The service, begun with few open files allowed, that says how its collector of cycles is set, once it is."""
FROZEN = 10_000
"""Objects that the libraries alone leave; there are some hundred thousand."""


def test_open_files_and_the_collector(tmp_path: Path, on_sqlite: Installation) -> None:
    """It may open as many files as its connections take, and its collector neither looks at what was there at the start
    nor often at the rest: a full collection would hold everybody up for 100 ms and more."""
    environment = on_sqlite.environment | {"ARTSTORE_MAX_CONNECTIONS": str(CONNECTIONS)}
    with Service(tmp_path / "service", environment, command=(sys.executable, "-c", TELLS)) as service:
        process = psutil.Process(service.pid)
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == (CONNECTIONS + OTHER_FILES if hard < 0 else min(CONNECTIONS + OTHER_FILES, hard)) > 256
        told = until(lambda: re.search(r"^COLLECTOR (.*)$", service.errors, re.MULTILINE), 30, "its collector is set")
    frozen, *thresholds = map(int, told[1].split())
    assert frozen > FROZEN
    assert tuple(thresholds) == COLLECTIONS
