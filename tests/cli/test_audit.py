"""`audit`: the ledger of a real service listed, exported, verified with and without it, and archived."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from artstore_grpc import exports, root_key
from artstore_grpc.archives import KEPT_ROWS
from artstore_grpc.key_files import EmbeddedKey
from artstore_grpc.notary import Notary
from artstore_grpc.store.schema import upgrade
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.vault import Vault
from tests.cli.conftest import Cli
from tests.cli.processes import COMMAND, Running, clean_environment
from tests.store.samples import event

Account = dict[str, Any]


@pytest.fixture
def exported(cli: Cli, made: Account, tmp_path: Path) -> Path:
    """The service's whole ledger, in a file."""
    cli("audit", "export", str(tmp_path / "ledger.jsonl"))
    return tmp_path / "ledger.jsonl"


def test_list(cli: Cli, made: Account) -> None:
    """Rows as a table for people, and as an object a line for programs; a filter narrows them."""
    mine = f"subject = {made['id']}"
    assert "account.created" in cli("audit", "list", "--filter", mine).stdout
    (row,) = [json.loads(line)["row"] for line in cli("audit", "list", "--filter", mine, "--json").stdout.splitlines()]
    assert (row["kind"], row["subject"]) == ("account.created", made["id"])
    assert len(cli("audit", "list", "--limit", "2", "--json").stdout.splitlines()) == 2
    *_, last = cli("audit", "list", "--json").stdout.splitlines()
    *_, before, newest = cli("audit", "list", "--last", "2", "--json").stdout.splitlines()
    assert json.loads(newest)["row"]["sequence"] >= json.loads(last)["row"]["sequence"]
    assert json.loads(newest)["row"]["sequence"] == json.loads(before)["row"]["sequence"] + 1
    cli("audit", "list", "--last", "2", "--limit", "2", code=2)
    cli("audit", "list", "--filter", "nonsense", code=10)


def test_export_verifies_without_the_service(cli: Cli, exported: Path) -> None:
    """A file is all that `audit verify FILE` needs: no account, no service, no database."""
    nobody = {"ARTSTORE_CLIENT_ID": "", "ARTSTORE_CLIENT_SECRET": "", "ARTSTORE_TARGET": "127.0.0.1:1"}
    said = json.loads(cli("audit", "verify", str(exported), "--json", **nobody).stdout)
    assert said["intact"]
    assert said["rows"] == said["last_sequence"] > 3
    assert said["vouched_sequence"] == 0
    assert "No checkpoint vouches" in cli("audit", "verify", str(exported), **nobody).stdout
    head = f"{said['last_sequence']}:{said['last_hash']}"
    cli("audit", "verify", str(exported), "--head", head, **nobody)
    cli("audit", "verify", "--head", head)


def test_a_broken_file_is_11(cli: Cli, exported: Path) -> None:
    """An altered row is named, with an exit code of its own; so is a cut file, and a head it doesn't lead to."""
    whole = exported.read_text()
    exported.write_text(whole.replace('"actor":"system"', '"actor":"nobody"', 1))
    result = cli("audit", "verify", str(exported), "--json", code=11)
    assert json.loads(result.stderr)["error"]["reason"] == "LEDGER_BROKEN"
    assert "row 1 was altered" in cli("audit", "verify", str(exported), code=11).stderr
    exported.write_text(whole.rpartition('{"end"')[0])
    assert "cut short" in cli("audit", "verify", str(exported), code=11).stderr
    exported.write_text(whole)
    assert "row 2" in cli("audit", "verify", str(exported), "--head", f"2:{'0' * 64}", code=11).stderr
    cli("audit", "verify", "--head", f"2:{'0' * 64}", code=11)


def test_export_replaces_a_file_only_when_it_is_whole(cli: Cli, exported: Path) -> None:
    """An export that fails leaves the file that was there, and nothing beside it."""
    before = exported.read_bytes()
    cli("audit", "export", str(exported), code=8, ARTSTORE_TARGET="127.0.0.1:1")
    assert exported.read_bytes() == before
    assert [each.name for each in exported.parent.iterdir()] == [exported.name]
    cli("audit", "export", str(exported / "below a file"), code=10)


def test_verify_the_service(cli: Cli, made: Account) -> None:
    """Without a file the service verifies itself, stretch by stretch."""
    said = json.loads(cli("audit", "verify", "--json").stdout)
    assert (said["intact"], said["rows"]) == (True, said["last_sequence"])
    assert "Intact" in cli("audit", "verify").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--head", "5"),
        ("verify", "--head", "0:" + "0" * 64),
        ("verify", "--head", "5:xyz"),
        ("verify", "--ledger-key", "kid"),
        ("verify", "no such file"),
        ("archive", "file"),
        ("archive", "file", "--before-checkpoint", "1", "--older-than", "1d"),
        ("archive", "file", "--before-checkpoint", "0"),
    ],
    ids=str,
)
def test_wrong_command_lines_are_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    """What makes no sense is refused before anything is read."""
    cli("audit", *arguments, code=2)


def test_explain(cli: Cli) -> None:
    """The id that a refusal printed is explained; anything else is no id."""
    refusal = cli("token", "--json", code=4, ARTSTORE_CLIENT_ID="sa_dev_nobody_00000000").stderr
    denial_id = json.loads(refusal)["error"]["denial_id"]
    assert cli("audit", "explain", denial_id).stdout.strip()
    assert json.loads(cli("audit", "explain", denial_id, "--json").stdout)["cause"]
    cli("audit", "explain", "nonsense", code=10)
    cli("audit", "explain", "-z" + "A" * 41, code=10)


def test_archive_of_a_young_ledger_is_7(cli: Cli, service: Running, service_folder: Path, tmp_path: Path) -> None:
    """Beside a running service: where nothing may be archived yet it is refused, and no file is left."""
    file = tmp_path / "old.jsonl"
    variables = {"ARTSTORE_DATA_DIR": str(service_folder / "var")}
    assert "checkpoint 7" in cli("audit", "archive", str(file), "--before-checkpoint", "7", code=7, **variables).stderr
    cli("audit", "archive", str(file), "--older-than", "90d", code=7, **variables)
    assert not list(tmp_path.iterdir())


ROWS = KEPT_ROWS + 4000


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An embedded installation whose ledger has 14,000 rows and a checkpoint every 1,000."""
    folder = tmp_path / "var"
    folder.mkdir()
    asyncio.run(fill(folder))
    return folder


def store_of(folder: Path) -> SqlStore:
    return SqlStore(f"sqlite:///{folder / 'identity.db'}")


def utc_now() -> datetime:
    return datetime.now(UTC)


async def notary_of(folder: Path, store: SqlStore) -> Notary:
    vault = Vault(await root_key.opened(store, EmbeddedKey(folder / "key-encryption.key"), utc_now))
    return Notary(store, vault, utc_now, configured("error"), "test")


async def fill(folder: Path) -> None:
    store = store_of(folder)
    await upgrade(f"sqlite:///{folder / 'identity.db'}")
    notary = await notary_of(folder, store)
    await notary.load()
    for _ in range(ROWS // 1000):
        async with store.unit() as unit:
            for number in range(1000):
                unit.record(event(f"subject {number}", time=datetime.now(UTC)))
        await notary.run()
    await store.close()


async def first_row(folder: Path) -> int:
    store = store_of(folder)
    found = await store.ledger(0, 1)
    await store.close()
    return found[0].sequence


def test_archive(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    """Old rows move to a file that verifies by itself, from there to the head that it was made for."""
    file = tmp_path / "old.jsonl"
    variables = {"ARTSTORE_DATA_DIR": str(data_dir)}
    arguments = ("audit", "archive", str(file), "--before-checkpoint", "2", "--json")
    said = json.loads(cli(*arguments, **variables).stdout)
    verified = json.loads(
        cli("audit", "verify", str(file), "--json", "--head", f"{said['sequence']}:{said['hash']}").stdout
    )
    assert (verified["rows"], verified["checkpoints"]) == (said["sequence"], 2)
    assert asyncio.run(first_row(data_dir)) == said["sequence"] + 1
    assert "already" in cli(*arguments, code=7, **variables).stderr
    assert verified["vouched_sequence"] == said["sequence"]
    known = cli("audit", "verify", str(file), "--ledger-key", verified["ledger_keys"][0]).stdout
    assert f"up to {said['sequence']}" in known
    cli("audit", "verify", str(file), "--ledger-key", "another", code=11)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_archive_killed(cli: Cli, data_dir: Path, tmp_path: Path) -> None:
    """SIGKILL at any moment loses no row: each is in the database or in the whole file, and at last all are."""
    file = tmp_path / "old.jsonl"
    environment = clean_environment(ARTSTORE_DATA_DIR=str(data_dir))
    command = [COMMAND, "audit", "archive", str(file), "--before-checkpoint", "3"]
    for tenths in range(6, 40, 3):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            process.wait(tenths / 10)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        if asyncio.run(first_row(data_dir)) > 1:
            with file.open("rb") as written:
                assert exports.verify(written).last[0] >= asyncio.run(first_row(data_dir)) - 1
        if ended(data_dir, file):  # perhaps killed just after
            break
        asyncio.run(release(data_dir))
    if not ended(data_dir, file):
        cli(*command[1:], ARTSTORE_DATA_DIR=str(data_dir))
    assert ended(data_dir, file)


def ended(folder: Path, file: Path) -> bool:
    """Whether the database goes on where the file ends."""
    if not file.exists():
        return False
    with file.open("rb") as written:
        return exports.verify(written).last[0] == asyncio.run(first_row(folder)) - 1


async def release(folder: Path) -> None:
    """As if the minute had passed that a killed command keeps its lease."""
    from sqlalchemy import update

    from artstore_grpc.store import tables

    store = store_of(folder)
    async with store._database.transaction() as transaction:
        await transaction.execute(update(tables.leases).values(expire_time=datetime(1970, 1, 1, tzinfo=UTC)))
    await store.close()
