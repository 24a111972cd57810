"""Two database roles: the one that the service runs as does its work, and can neither change tables nor the ledger."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from artstore.identity.v1 import audit_service_pb2 as audit_pb
from artstore.identity.v1 import key_service_pb2 as keys_pb

from artstore_grpc.errors import MissingPrivilege
from artstore_grpc.store import schema
from artstore_grpc.store.privileges import PRIVILEGES
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.store.tables import metadata
from artstore_grpc.vault import new_key
from tests.api.callers import Api
from tests.api.conftest import ISSUER, administrator
from tests.api.doors import GrpcDoor
from tests.cli import processes
from tests.conftest import execute
from tests.installation import Installation
from tests.servers import Postgres

ROOT = Path(__file__).resolve().parents[2]

FORBIDDEN = (
    "UPDATE ledger SET detail = '{}'",
    "DELETE FROM ledger",
    "TRUNCATE ledger",
    "DELETE FROM ledger_head",
    "UPDATE checkpoints SET number = 5",
    "DELETE FROM ledger_keys",
    "UPDATE alembic_version SET version_num = '0001'",
    "DELETE FROM wrapped_keys",
    "DROP TABLE accounts",
    "ALTER TABLE accounts ADD COLUMN x int",
    "CREATE TABLE mine (x int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "ALTER TABLE ledger DISABLE TRIGGER ALL",
)


@pytest_asyncio.fixture
async def granted_url(postgres_url: str, run_role: str, run_url: str) -> str:
    """The migrated database, as the service's role sees it once it has what an upgrade grants."""
    await schema.upgrade(postgres_url, run_role)
    return run_url


def test_every_table_has_a_row() -> None:
    """A table that a migration adds is told of here, with the least that the service needs of it."""
    assert set(PRIVILEGES) == {*metadata.tables, "alembic_version"}


def test_the_service_does_its_work(granted_url: str, tmp_path: Path) -> None:
    """Accounts, secrets, tokens, keys and the ledger, a start and a stop: as that role."""
    own = {"database_url": granted_url, "issuer": ISSUER, "key_encryption_key": new_key()}
    with Installation(tmp_path, **own) as service:
        door = GrpcDoor(str(service.started.grpc_address))
        admin = administrator(service, door)
        account = admin.account()
        admin.revoke(account, admin.token(account))
        account = admin.rotated(account)
        for verb in (admin.suspend, admin.activate, admin.delete, admin.undelete):
            verb(account.id)
        admin.token(account)
        for method, request in REQUESTS.items():
            door.call(method, request, admin.authorization)
        assert door.call("VerifyAuditLog", audit_pb.VerifyAuditLogRequest(), admin.authorization).intact
        with pytest.raises(Exception, match="INVALID_CLIENT"):
            Api(door, ISSUER).issue(replace(account, secret="wrong"))
        door.close()
        assert not [line for line in service.log.getvalue().splitlines() if '"level":"error"' in line]


REQUESTS: dict[str, Any] = {
    "PrepareSigningKey": keys_pb.PrepareSigningKeyRequest(),
    "RotateSigningKey": keys_pb.RotateSigningKeyRequest(),
}


@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_what_it_can_not(granted_url: str, statement: str) -> None:
    """Neither alter tables, nor rewrite what is recorded, nor give itself the right to."""
    connection = await asyncpg.connect(granted_url)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_it_can_not_give_itself_more(granted_url: str, run_role: str) -> None:
    """PostgreSQL answers such a GRANT with a warning, and grants nothing."""
    connection = await asyncpg.connect(granted_url)
    try:
        await connection.execute(f"GRANT DELETE ON ledger TO {run_role}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM ledger")
    finally:
        await connection.close()


async def test_more_than_that_is_taken_away(postgres_url: str, run_role: str) -> None:
    """What the role was given before by hand goes with the next upgrade."""
    for what in ("ALL TABLES IN SCHEMA", "SCHEMA"):
        await execute(postgres_url, f"GRANT ALL ON {what} public TO {run_role}")
    await schema.upgrade(postgres_url, run_role)
    connection = await asyncpg.connect(postgres_url)
    try:
        held = await connection.fetchval(f"SELECT has_table_privilege('{run_role}', 'ledger', 'DELETE')")
        creates = await connection.fetchval(f"SELECT has_schema_privilege('{run_role}', 'public', 'CREATE')")
    finally:
        await connection.close()
    assert (held, creates) == (False, False)


@pytest.mark.parametrize("name", ["no_such_role", "postgres", 'a"b', "x; DROP TABLE accounts"])
async def test_roles_that_can_not_be(postgres_url: str, name: str) -> None:
    """One that isn't there, and the one that migrates itself, are refused, and nothing is done."""
    with pytest.raises(schema.UnknownRole, match="another one"):
        await schema.upgrade(postgres_url, name)


async def test_sqlite_has_none(sqlite_url: str) -> None:
    """A clear sentence."""
    with pytest.raises(schema.UnknownRole, match="SQLite has no roles"):
        await schema.upgrade(sqlite_url, "run")


def test_the_command(postgres_url: str, run_role: str, tmp_path: Path) -> None:
    """`db upgrade --run-role`, twice, since every deployment runs it; a role that isn't there has its exit code."""
    variables = {
        "ARTSTORE_DATABASE_URL": postgres_url,
        "ARTSTORE_ISSUER": ISSUER,
        "ARTSTORE_KEY_ENCRYPTION_KEY": new_key(),
    }
    for _ in range(2):
        said = processes.run("db", "upgrade", "--run-role", run_role, folder=tmp_path, **variables)
        assert said.returncode == 0, said.stderr
    said = processes.run("db", "upgrade", "--run-role", "nobody_there", folder=tmp_path, **variables)
    assert (said.returncode, "must be there already" in said.stderr) == (6, True)


async def test_an_archive_wants_the_other_role(granted_url: str) -> None:
    """Deleting rows of the ledger is refused in a sentence that says so, and is no outage."""
    store = SqlStore(granted_url)
    try:
        with pytest.raises(MissingPrivilege, match="the role that migrates"):
            await store.delete_ledger(5, 10)
    finally:
        await store.close()


@pytest.fixture
def cluster() -> Iterator[Postgres]:
    """A PostgreSQL of this test's own: roles belong to a whole cluster."""
    with Postgres() as server:
        yield server


def test_the_script_of_compose(cluster: Postgres, tmp_path: Path) -> None:
    """deploy/postgres_run_role.sh, as PostgreSQL's image runs it, makes a role that can log in and do nothing; the
    password is the file's, whatever is in it."""
    password = 'it\'s "$HOME" \\ `x`'
    (tmp_path / "password").write_text(password + "\n")
    environment = {
        "PATH": f"{cluster.binaries}:{os.environ['PATH']}",
        "PGHOST": str(cluster.folder),
        "POSTGRES_USER": "postgres",
        "POSTGRES_DB": "postgres",
        "POSTGRES_RUN_PASSWORD_FILE": str(tmp_path / "password"),
    }
    said = subprocess.run(["sh", ROOT / "deploy/postgres_run_role.sh"], env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    query = "SELECT rolcanlogin, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = 'artstore_run'"
    psql = [cluster.binaries / "psql", "--no-psqlrc", "--tuples-only", "--no-align", "--username=postgres", "--command"]
    found = subprocess.run([*psql, query, "postgres"], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "t|f|f|f"
