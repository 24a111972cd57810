"""Imports that are interrupted, or killed half-way: the same command goes on, and nothing is there twice."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.legacy import rows, written
from tests.cli.processes import COMMAND, WAIT_SECONDS, Running, clean_environment, credentials, embedded
from tests.servers import Postgres

HEEDING = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
"""A shell that runs the tests in the background has them ignore SIGINT, and so whatever they start. Not by preexec_fn:
that forks this process, where gRPC has threads."""


@contextmanager
def on_a_terminal(*arguments: str, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """A command whose standard error is a terminal, and what it has written there."""
    ours, theirs = pty.openpty()
    seen = bytearray()

    def drain() -> None:
        while True:
            try:
                chunk = os.read(ours, 65_536)
            except OSError:  # the other end is closed
                return
            if not chunk:
                return
            seen.extend(chunk)

    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, COMMAND, *arguments],
        env=clean_environment(TERM="xterm", COLUMNS="100", **variables),
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
    )
    os.close(theirs)
    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        yield process, lambda: seen.decode(errors="replace")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(WAIT_SECONDS)
        reader.join(WAIT_SECONDS)
        os.close(ours)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def quick_administrator(environment: dict[str, str], folder: Path, *, rate_limit: int = 100_000) -> dict[str, str]:
    """An administrator with a limit that is not what is measured; with another one, one that is held up by it."""
    name, limit = f"migration-{rate_limit}", str(rate_limit)
    made = subprocess.run(
        [COMMAND, "accounts", "create", "--name", name, "--role", "admin", "--rate-limit", limit, "--json"],
        env=clean_environment(**environment),
        cwd=folder,
        capture_output=True,
        check=True,
    )
    account = json.loads(made.stdout)
    return environment | {
        "ARTSTORE_CLIENT_ID": account["client_id"],
        "ARTSTORE_CLIENT_SECRET": account["client_secret"],
    }


def test_ctrl_c_says_how_to_go_on(administrator: dict[str, str], service: Running, tmp_path: Path) -> None:
    """An interrupted import says how far it came and that the same command goes on; that does it."""
    file = written(tmp_path / "accounts.csv", rows(5000))
    held_up = quick_administrator(administrator, tmp_path, rate_limit=20)  # so that it can't be done before the signal
    with on_a_terminal("accounts", "import", file, **held_up) as (process, seen):
        wait_until(lambda: "00/5000" in seen())
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == 1
    assert "run the same command again, and it goes on" in seen()
    who = quick_administrator(administrator, tmp_path)
    done = subprocess.run(
        [COMMAND, "accounts", "import", file, "--json"], env=clean_environment(**who), capture_output=True, check=True
    )
    said = json.loads(done.stdout)
    assert said["created"] + said["unchanged"] == 5000
    assert said["unchanged"] >= 100


THOUSANDS = 10_000


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_ten_thousand_killed_half_way(database: str, tmp_path: Path) -> None:
    """10,000 accounts with given hashes and a progress bar, killed half-way and run again: exactly 10,000."""
    file = written(tmp_path / "accounts.csv", rows(THOUSANDS))
    with serving(database, tmp_path) as (who, count):
        with on_a_terminal("accounts", "import", file, **who) as (process, seen):
            wait_until(lambda: count() >= THOUSANDS // 2)
            process.kill()
            process.wait(WAIT_SECONDS)
        assert "importing" in seen()
        assert f"/{THOUSANDS}" in seen(), "there is a bar"
        half = count()
        assert THOUSANDS // 2 <= half < THOUSANDS
        with on_a_terminal("accounts", "import", file, **who) as (process, seen):
            assert process.wait(WAIT_SECONDS) == 0, seen()
        told = re.search(rf"{THOUSANDS:,} accounts: ([0-9,]+) created, ([0-9,]+) unchanged, 0 failed", seen())
        assert told, seen()
        created, unchanged = (int(each.replace(",", "")) for each in told.groups())
        assert created + unchanged == THOUSANDS
        assert unchanged >= half, "a batch that was on its way may have come after the count"
        assert count() == THOUSANDS


@contextmanager
def serving(database: str, folder: Path) -> Iterator[tuple[dict[str, str], Callable[[], int]]]:
    """A service on this database: an administrator's environment, and how many accounts were imported so far."""
    if database == "sqlite":
        with embedded(folder):
            who = credentials(folder / "var" / "administrator.env")
            with closing(sqlite3.connect(f"file:{folder}/var/identity.db?mode=ro", uri=True)) as file:
                yield quick_administrator(who, folder), lambda: int(file.execute(COUNT).fetchone()[0])
        return
    with Postgres() as server:
        variables = {
            "ARTSTORE_DATABASE_URL": server.url(),
            "ARTSTORE_ISSUER": "https://identity.test",
            "ARTSTORE_KEY_ENCRYPTION_KEY": "A" * 43 + "=",
            "ARTSTORE_BCRYPT_COST": "4",
        }
        for command in (["db", "upgrade"], ["bootstrap", "--json"]):
            made = subprocess.run(
                [COMMAND, *command], env=clean_environment(**variables), cwd=folder, capture_output=True, check=True
            )
        first = json.loads(made.stdout)
        doors = ("GRPC", "GATEWAY", "METRICS")
        ports = {f"ARTSTORE_{door}_ADDRESS": "127.0.0.1:0" for door in doors}
        with Running("serve", folder=folder, until='"ready"', **ports, **variables) as running:
            who = {
                "ARTSTORE_TARGET": running.found(r'"grpc": ?"([^"]+)"'),
                "ARTSTORE_CLIENT_ID": first["client_id"],
                "ARTSTORE_CLIENT_SECRET": first["client_secret"],
            }
            yield quick_administrator(who, folder), lambda: int(asked(server.url(), COUNT))


COUNT = "SELECT count(*) FROM secrets WHERE imported"


def asked(url: str, query: str) -> Any:
    import asyncpg

    async def ask() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())
