"""`accounts import` and `accounts export`, against a real service: what is done, told and waited for."""

from __future__ import annotations

import asyncio
import json
import subprocess
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
from tests.cli.legacy import rows, written
from tests.cli.processes import COMMAND, WAIT_SECONDS, clean_environment


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
