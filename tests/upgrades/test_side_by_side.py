"""The previous release and this one on one database: together under load, one stopped, schema expanded, rolled back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb

from artstore_grpc.installation import Administrator
from artstore_grpc.store.compatibility import SCHEMA
from artstore_grpc.vault import new_key
from tests.processes import chain
from tests.processes.service import COMMAND, ISSUER, START_SECONDS, Client, Installation, Service
from tests.store.migrating import EXPANDING, HEAD, NEXT, add_migration
from tests.upgrades.previous import Release
from tests.wheels import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHORT_SECONDS, LONG_SECONDS, ALONE_SECONDS = 8.0, 60.0, 4.0
KNOWS_ITS_OWN = "0.2.0"
"""The last release that runs on no schema but its own, and whose connections have no name."""
CALLERS = 4
RATE = 1_000_000
CALLERS_SCRIPT = Path(__file__).with_name("callers.py")

EXPANSION = """op.add_column("accounts", sa.Column("trial", sa.Text()))
op.add_column("secrets", sa.Column("trial", sa.Boolean(), nullable=False, server_default=sa.false()))
op.create_table("trials", sa.Column("id", sa.Integer(), primary_key=True))
op.create_index("ix_trial", "accounts", ["update_time"])"""
CONTRACTION = 'op.drop_column("accounts", "trial")'
CONTRACTING = f"{NEXT + 1:04}_from_{NEXT:04}"


def command(environment: dict[str, str], program: Sequence[str], *words: str) -> subprocess.CompletedProcess[str]:
    clean = Service(Path(), environment).environment
    return subprocess.run([*program, *words], env=clean, cwd="/", capture_output=True, text=True, check=False)


def succeeded(ended: subprocess.CompletedProcess[str]) -> str:
    assert not ended.returncode, ended.stderr
    return ended.stdout


@pytest.fixture
def made(previous: Release, postgres_empty_url: str, redis_url: str) -> Installation:
    """An installation that the previous release has made."""
    environment = {
        "ARTSTORE_DATABASE_URL": postgres_empty_url,
        "ARTSTORE_REDIS_URL": redis_url,
        "ARTSTORE_KEY_ENCRYPTION_KEY": new_key(),
        "ARTSTORE_ISSUER": ISSUER,
        "ARTSTORE_JWKS_MAX_AGE": "1",  # so that a rotation of the signing key takes seconds
    }
    succeeded(command(environment, previous.command, "db", "upgrade"))
    administrator = json.loads(succeeded(command(environment, previous.command, "bootstrap", "--json")))
    return Installation(environment, Administrator(**administrator))


@contextmanager
def running(folder: Path, installation: Installation, program: Sequence[str] = COMMAND) -> Iterator[Service]:
    with Service(folder, installation.environment, (*program, "serve")) as service:
        yield service


def account(client: Client, name: str) -> dict[str, str]:
    """An account that is asked a lot, and may be introspected by itself."""
    message = accounts_pb.ServiceAccount(name=name, role=accounts_pb.ROLE_USER, rate_limit=RATE)
    request = accounts_pb.CreateServiceAccountRequest(service_account=message)
    got = client.accounts.CreateServiceAccount(request, metadata=client.bearer)
    return {
        "id": got.service_account.id,
        "client_id": got.service_account.client_id,
        "client_secret": got.client_secret,
    }


def begin(python: str, task: dict[str, Any]) -> subprocess.Popen[str]:
    """Callers with the library of that Python, once they are ready."""
    process = subprocess.Popen(
        [python, str(CALLERS_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(task) + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    return process


def both_under_load(folder: Path, previous: Release, made: Installation, together: float) -> dict[str, dict[str, Any]]:
    """Both releases serve for so many seconds, each called by its own library and by the other's; then the old one is
    stopped, and the rest goes on at the new one. What came of it, by library."""
    with ExitStack() as stack:
        old = stack.enter_context(running(folder / "old", made, previous.command))
        succeeded(command(made.environment, COMMAND, "db", "upgrade"))  # while the old one serves
        new = stack.enter_context(running(folder / "new", made))
        client = stack.enter_context(Client(old.grpc_address, made))
        who = made.administrator
        tasks = []
        for name in ("old", "new"):
            accounts = [account(client, f"{name} {number}") for number in range(CALLERS)]
            tasks.append(
                {
                    "old": old.grpc_address,
                    "new": new.grpc_address,
                    "seconds": together + ALONE_SECONDS,
                    "issuer": ISSUER,
                    "audience": "artstore",
                    "callers": [[each["client_id"], each["client_secret"]] for each in accounts],
                    "rotated": account(client, f"{name} rotated"),
                    "administrator": [who.client_id, who.client_secret],
                }
            )
        processes = [
            begin(python, task) for python, task in zip((str(previous.python), sys.executable), tasks, strict=True)
        ]
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        time.sleep(together)  # the load's length is what is asked for
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("the old one stops\n")
            process.stdin.flush()
        old.terminate()
        assert old.wait() == 0
        found = [json.loads(process.communicate(timeout=together + 120)[0]) for process in processes]
    return dict(zip(("old", "new"), found, strict=True))


def assert_nothing_failed(found: dict[str, dict[str, Any]], previous: Release) -> None:
    print(json.dumps(found, indent=1))
    assert Path(found["old"]["library"]).is_relative_to(previous.python.parents[1])
    assert Path(found["new"]["library"]).is_relative_to(ROOT)
    for each in found.values():
        assert each["failures"] == {}
        for what in ("tokens", "verified", "introspected", "revoked", "secrets rotated", "keys rotated"):
            assert each["done"][what], what


def test_two_releases_serve_together(tmp_path: Path, previous: Release, made: Installation) -> None:
    """Each takes what the other has issued, rotated and revoked; when the old one is stopped nobody is denied, and the
    ledger holds."""
    assert_nothing_failed(both_under_load(tmp_path, previous, made, SHORT_SECONDS), previous)
    assert chain.verified(made.environment["ARTSTORE_DATABASE_URL"])["token.revoked"]


@pytest.mark.drill
def test_two_releases_serve_together_for_a_minute(tmp_path: Path, previous: Release, made: Installation) -> None:
    """The same for 60 seconds; several keys have signed by then."""
    found = both_under_load(tmp_path, previous, made, LONG_SECONDS)
    assert_nothing_failed(found, previous)
    assert len(set(found["old"]["keys"]) & set(found["new"]["keys"])) > 1
    assert chain.verified(made.environment["ARTSTORE_DATABASE_URL"])["token.revoked"]


def later_release(folder: Path) -> list[str]:
    """The next release as it could be: this one, with an expansion and a contraction. Its command."""
    shutil.copytree(ROOT / "artstore_grpc", folder / "artstore_grpc", ignore=shutil.ignore_patterns("__pycache__"))
    store = folder / "artstore_grpc/store"
    add_migration(store / "migrations/versions", EXPANSION)
    add_migration(store / "migrations/versions", CONTRACTION, CONTRACTING, EXPANDING, leaves=("accounts.trial",))
    module = store / "compatibility.py"
    own = module.read_text()
    module.write_text(own.replace(f"SCHEMA = {SCHEMA}\n", f"SCHEMA = {NEXT + 1}\n"))
    assert module.read_text() != own
    run = f"import sys; sys.path.insert(0, {str(folder)!r}); from artstore_grpc.cli.main import main; main()"
    return [sys.executable, "-c", run]


def works(service: Service, made: Installation, name: str) -> None:
    """It makes an account, rotates its secret, issues, revokes nothing of others."""
    with Client(service.grpc_address, made) as client:
        got = client.create(name)
        rotated = client.rotate(got.service_account.id)
        token = client.issue(got.service_account.client_id, rotated.client_secret).access_token
        assert client.introspect(token).active
        client.suspend(got.service_account.id)
        assert not client.introspect(token).active


def test_the_next_release_s_schema(tmp_path: Path, previous: Release, made: Installation) -> None:
    """A database of the previous release, migrated by the next one while the previous one and this one serve: both go
    on, this one starts anew on it, the next one beside it, and after the next one was stopped this one again."""
    later = later_release(tmp_path / "later")
    with ExitStack() as stack:
        old = stack.enter_context(running(tmp_path / "old", made, previous.command))
        this = stack.enter_context(running(tmp_path / "this", made))
        works(old, made, "before")
        said = succeeded(command(made.environment, later, "db", "upgrade"))
        assert "1 steps that no program of a schema before" in said
        for service in (old, this):
            works(service, made, f"after, by {service.log_path}")
        with running(tmp_path / "again", made) as again, running(tmp_path / "next", made, later) as following:
            assert again.logged("the schema is newer, and takes this program")["schema"] == EXPANDING
            works(again, made, "by this one beside the next one")
            works(following, made, "by the next one")
        with running(tmp_path / "back", made) as back:
            works(back, made, "rolled back")
        refused = command(made.environment, later, "db", "upgrade", "--contract")
        assert (refused.returncode, refused.stdout) == (7, "")
        assert ("no name" in refused.stderr) is (previous.version == KNOWS_ITS_OWN)
        assert f"of schema {SCHEMA:04}" in refused.stderr
    succeeded(command(made.environment, later, "db", "upgrade", "--contract"))
    ended = command(made.environment, COMMAND, "db", "status", "--json")
    assert ended.returncode == 7
    assert json.loads(ended.stdout) | {"connections": {}} == {
        "schema": CONTRACTING,
        "program": HEAD,
        "runs": False,
        "pending": [],
        "connections": {},
    }
    assert chain.verified(made.environment["ARTSTORE_DATABASE_URL"])


def test_the_previous_release_starts_on_a_newer_schema(tmp_path: Path, previous: Release, made: Installation) -> None:
    """Rolled back to over a migration that admits it, it starts and works. Release 0.2.0 knows of no schema but its own
    and says so: between it and the release that it is rolled back from there must be no migration."""
    succeeded(command(made.environment, later_release(tmp_path / "later"), "db", "upgrade"))
    old = Service(tmp_path / "old", made.environment, (*previous.command, "serve"))
    try:
        if previous.version == KNOWS_ITS_OWN:
            assert old.spawn().wait(START_SECONDS) == 7
            assert EXPANDING in old.errors
        else:
            works(old.start(), made, "rolled back to")
    finally:
        old.kill()
