"""`accounts import` and `accounts export`, against a real service: what is done and told, and going on after a stop."""

from __future__ import annotations

import asyncio
import csv
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
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from artstore.identity import ImportResult, RateLimited, Unavailable

from artstore_grpc.cli import imports
from artstore_grpc.cli.account_files import Format, read
from artstore_grpc.cli.imports import Run
from artstore_grpc.cli.progress import bar
from tests.bcrypt_vectors import ABC
from tests.cli.conftest import Cli
from tests.cli.processes import COMMAND, WAIT_SECONDS, Running, clean_environment, credentials, embedded
from tests.servers import Postgres


def rows(count: int, **columns: str) -> list[dict[str, str]]:
    """Accounts of another system, no two of any test's alike."""
    mark = uuid4().hex[:8]
    return [
        {"client_id": f"old-{mark}-{n}", "name": f"imported {mark} {n}", "role": "user", "secret_hash": ABC, **columns}
        for n in range(count)
    ]


def written(path: Path, accounts: list[dict[str, str]]) -> str:
    """A CSV file of accounts."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*accounts[0]])
        writer.writeheader()
        writer.writerows(accounts)
    return str(path)


def test_import_and_again(cli: Cli, tmp_path: Path) -> None:
    """Accounts are created with their ids and secrets, and left alone when the file is sent again."""
    accounts = rows(230)
    file = written(tmp_path / "accounts.csv", accounts)
    assert "230 accounts: 230 created, 0 unchanged, 0 failed." in cli("accounts", "import", file).stderr
    again = cli("accounts", "import", file, "--json")
    assert json.loads(again.stdout) == {"dry_run": False, "created": 0, "unchanged": 230, "failed": 0}
    got = json.loads(cli("accounts", "get", accounts[7]["client_id"], "--json").stdout)
    assert (got["name"], got["secrets"][0]["imported"]) == (accounts[7]["name"], True)
    cli("token", ARTSTORE_CLIENT_ID=accounts[7]["client_id"], ARTSTORE_CLIENT_SECRET="abc")
    cli("token", code=4, ARTSTORE_CLIENT_ID=accounts[7]["client_id"], ARTSTORE_CLIENT_SECRET="abd")


def test_what_fails_is_told(cli: Cli, tmp_path: Path) -> None:
    """Each failure by line, client_id and reason, on the terminal and in the report; the rest is done, and the exit
    code says that it is not all. No hash is printed, not even a malformed one."""
    accounts = rows(5)
    accounts[1] |= {"role": "root"}
    accounts[2] |= {"secret_hash": f"{ABC}x"}
    accounts[3] |= {"name": accounts[0]["name"]}
    report = tmp_path / "report.jsonl"
    file = written(tmp_path / "accounts.csv", accounts)
    result = cli("accounts", "import", file, "--report", str(report), code=12)
    assert "5 accounts: 2 created, 0 unchanged, 3 failed." in result.stderr
    assert f"line 4 ({accounts[2]['client_id']}): INVALID_REQUEST: secret_hash" in result.stderr
    told = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(each["line"], each["client_id"], each["reason"]) for each in told] == [
        (3, accounts[1]["client_id"], "INVALID_LINE"),
        (4, accounts[2]["client_id"], "INVALID_REQUEST"),
        (5, accounts[3]["client_id"], "INVALID_LINE"),
    ]
    assert told[1]["code"] == "INVALID_ARGUMENT"
    assert told[1]["violations"][0]["field"] == "secret_hash"
    assert ABC not in result.output + report.read_text()
    assert report.stat().st_mode & 0o777 == 0o600
    as_json = cli("accounts", "import", file, "--json", code=12)
    assert json.loads(as_json.stdout)["failed"] == 3
    assert json.loads(as_json.stderr)["error"]["reason"] == "SOME_FAILED"


def test_a_dry_run_changes_nothing(cli: Cli, tmp_path: Path) -> None:
    """It finds what would fail, and creates nothing."""
    accounts = rows(3)
    accounts[1] |= {"name": "x"}
    file = written(tmp_path / "accounts.csv", accounts)
    for _ in range(2):
        said = cli("accounts", "import", file, "--dry-run", code=12).stderr
        assert "3 accounts: 2 would be created, 0 unchanged, 1 failed." in said
    cli("accounts", "get", accounts[0]["client_id"], code=6)


def test_the_format_and_standard_input(administrator: dict[str, str], tmp_path: Path) -> None:
    """JSON lines from standard input, where the format must be said."""
    line = json.dumps(rows(1)[0])

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "accounts", "import", "-", *options],
            env=clean_environment(**administrator),
            input=line,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )

    assert run().returncode == 2
    done = run("--format", "jsonl")
    assert done.returncode == 0, done.stderr
    assert "importing: 1 of 1" in done.stderr
    assert "1 created" in done.stderr


@pytest.mark.parametrize("content", ["name\nx\n", 'name,role\n"x,user\n', "nonsense"])
def test_a_file_that_is_none(cli: Cli, tmp_path: Path, content: str) -> None:
    """A file of another kind, or none, is refused in one sentence before anything is sent."""
    file = tmp_path / "accounts.csv"
    cli("accounts", "import", str(file), code=10)
    file.write_text(content)
    assert cli("accounts", "import", str(file), code=10).stderr.count("\n") == 1


def test_who_may_not(cli: Cli, made: dict[str, Any], tmp_path: Path) -> None:
    """An account without the right is told so, once."""
    file = written(tmp_path / "accounts.csv", rows(500))
    who = {"ARTSTORE_CLIENT_ID": made["client_id"], "ARTSTORE_CLIENT_SECRET": made["client_secret"]}
    said = cli("accounts", "import", file, code=5, **who).stderr
    assert said.count("may not manage accounts") == 1
    assert "Stopped after 0 of 500" in said


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_an_export_is_read_again(cli: Cli, tmp_path: Path, format: str) -> None:
    """What is exported is imported as it was: here it is unchanged, without secrets and the administrator."""
    mark = uuid4().hex[:8]
    name = f'{mark} größe, "quoted"'
    cli("accounts", "create", "--name", name, "--role", "auditor", "--description", "a\nb", "--rate-limit", "9")
    cli("accounts", "create", "--name", f"{mark} two", "--role", "user", "--scope", "storage.read", "--serves", "x")
    file = tmp_path / f"accounts.{format}"
    cli("accounts", "export", str(file), "--filter", f'name : "{mark}"')
    assert file.stat().st_mode & 0o777 == 0o600
    assert "$2" not in file.read_text()
    first, second = read(file.read_bytes(), Format(format))
    assert (first.name, first.item.service_account.description) == (name, "a\nb")
    assert list(second.item.service_account.served_audiences) == ["x"]
    said = json.loads(cli("accounts", "import", str(file), "--json").stdout)
    assert said == {"dry_run": False, "created": 0, "unchanged": 2, "failed": 0}
    everything = cli("accounts", "export", "-", "--format", format)
    assert "administrator" not in everything.stdout
    assert name.replace('"', '""' if format == "csv" else '\\"') in everything.stdout


def test_an_export_that_fails_leaves_the_file(cli: Cli, tmp_path: Path) -> None:
    """A file is replaced only by one that is whole."""
    file = tmp_path / "accounts.csv"
    file.write_text("before")
    cli("accounts", "export", str(file), "--filter", "nonsense", code=10)
    assert [each.name for each in tmp_path.iterdir()] == ["accounts.csv"]
    assert file.read_text() == "before"


@pytest.mark.parametrize(
    ("total", "told"), [(250, [25, 50, 75, 100, 125, 150, 175, 200, 225, 250]), (3, [1, 2, 3]), (0, [])]
)
def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str], total: int, told: list[int]) -> None:
    """Ten lines where the end is known; where it isn't, one for each 10,000."""
    with bar("importing", lines=True) as moved:
        for done in range(1, 251):
            moved(min(done, total or done), total)
    assert capsys.readouterr().err.splitlines() == [f"importing: {done} of {total}" for done in told]
    with bar("exporting", lines=True) as moved:
        for done in range(0, 25_000, 1000):
            moved(done, 0)
    assert capsys.readouterr().err.splitlines() == ["exporting: 10,000", "exporting: 20,000"]


class Refusing:
    """A client whose first calls are refused; then it does as a service does."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def import_service_accounts(self, items: list[Any], *, validate_only: bool) -> list[ImportResult]:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return [ImportResult(outcome="IMPORT_OUTCOME_CREATED") for _ in items]


def refusal(kind: Any, after: float | None = None) -> Exception:
    wait = None if after is None else timedelta(seconds=after)
    error: Exception = kind(grpc.StatusCode.UNKNOWN, "R", "m", (), wait)
    return error


def lines(count: int) -> list[Any]:
    return read("\n".join(json.dumps(row) for row in rows(count)).encode(), Format.JSONL)


async def test_a_busy_service_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate limit is waited out, as long as the service says and as often; so is a service that is away a while."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    client: Any = Refusing(*[refusal(RateLimited, 17.0)] * 20, refusal(Unavailable), refusal(Unavailable, 3.0))
    run = Run(client, dry_run=False)
    await run.through(lines(1), lambda done, total: None)
    assert (run.counts["created"], client.calls) == (1, 23)
    assert slept == [17.0] * 20 + [0.5, 3.0]


async def test_a_service_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """After half a minute of trying the import ends with what the service last said; what was done is counted."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    client: Any = Refusing(*[refusal(Unavailable)] * 1000)
    with pytest.raises(Unavailable):
        await Run(client, dry_run=False).through(lines(1), lambda done, total: None)
    assert client.calls == imports.TRIES
    assert 20 < sum(slept) < 60


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
