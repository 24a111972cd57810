"""What a start refuses: it ends at once, with one clear sentence and no traceback."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import asyncpg
import pytest

from artstore_grpc.vault import new_key
from tests.processes.service import ISSUER, Client, Installation, Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

REFUSAL_SECONDS = 30.0


def refused(folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """How a start ends that must: its exit code, and all that it says besides its log."""
    service = Service(folder / "refused", environment)
    try:
        code = service.spawn().wait(REFUSAL_SECONDS)
        assert len(service.said) == 1, service.errors
        assert "Traceback" not in service.errors
        assert not [line for line in service.lines() if line["event"] == "ready"]
        return code, service.said[0]
    finally:
        service.kill()


def statement(database_url: str, sql: str) -> None:
    """Runs one statement on either kind of database."""
    if database_url.startswith("sqlite"):
        connection = sqlite3.connect(database_url.removeprefix("sqlite:///"))
        with connection:
            connection.execute(sql)
        connection.close()
        return

    async def run() -> None:
        postgres = await asyncpg.connect(database_url)
        await postgres.execute(sql)
        await postgres.close()

    asyncio.run(run())


def test_a_newer_schema_is_refused(tmp_path: Path, installation: Installation) -> None:
    """A database that a newer release has migrated: the sentence says which is newer, and what to do."""
    url = installation.environment["ARTSTORE_DATABASE_URL"]
    statement(url, "UPDATE alembic_version SET version_num = 'from_the_future'")
    code, said = refused(tmp_path, installation.environment)
    assert code == 7
    assert "newer than this program" in said
    assert "from_the_future" in said


def test_a_database_without_tables_is_refused(tmp_path: Path, postgres_empty_url: str) -> None:
    """A database that was never migrated: the sentence names the command; a DRAIN_DELAY doesn't hold it up."""
    environment = {
        "ARTSTORE_DATABASE_URL": postgres_empty_url,
        "ARTSTORE_KEY_ENCRYPTION_KEY": new_key(),
        "ARTSTORE_ISSUER": ISSUER,
        "ARTSTORE_DRAIN_DELAY": "300",
    }
    code, said = refused(tmp_path, environment)
    assert code == 7
    assert "artstore-grpc db upgrade" in said


def test_another_key_encryption_key_is_refused(tmp_path: Path, installation: Installation) -> None:
    """A key that isn't the database's: refused, before anything is sealed under it; with the right one it starts."""
    with Service(tmp_path / "first", installation.environment) as service:
        with Client(service.grpc_address, installation) as client:
            key_ids = client.key_ids()
        service.terminate()
        assert service.wait() == 0
    code, said = refused(tmp_path, installation.environment | {"ARTSTORE_KEY_ENCRYPTION_KEY": new_key()})
    assert code == 10
    assert "key-encryption key" in said
    with (
        Service(tmp_path / "second", installation.environment) as service,
        Client(service.grpc_address, installation) as client,
    ):
        assert set(key_ids) <= set(client.key_ids())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"ARTSTORE_ISSUER": ""}, "ARTSTORE_ISSUER"),
        ({"ARTSTORE_KEY_ENCRYPTION_KEY": ""}, "ARTSTORE_KEY_ENCRYPTION_KEY"),
        ({"ARTSTORE_KEY_ENCRYPTION_KEY": "c2hvcnQ="}, "32 bytes"),
        ({"ARTSTORE_KEY_ENCRYPTION_KEY_FILE": "key"}, "both"),
        ({"ARTSTORE_KEY_ENCRYPTION_KMS": "unix:///kms.sock"}, "ARTSTORE_KEY_ENCRYPTION_KMS"),
        ({"ARTSTORE_KEY_ENCRYPTION_KEY": "", "ARTSTORE_KEY_ENCRYPTION_KMS": "kms.sock"}, "unix:///"),
        ({"ARTSTORE_ENVIRONMENT": "prod"}, "ARTSTORE_BCRYPT_COST"),
        ({"ARTSTORE_AUDIENCE": ISSUER}, "ARTSTORE_AUDIENCE"),
        (
            {"ARTSTORE_METRICS_ADDRESS": "127.0.0.1:7001", "ARTSTORE_GATEWAY_ADDRESS": "127.0.0.1:7001"},
            "ARTSTORE_GATEWAY_ADDRESS and ARTSTORE_METRICS_ADDRESS",
        ),
        ({"ARTSTORE_DRAIN_GRACE": "soon"}, "ARTSTORE_DRAIN_GRACE"),
        ({"ARTSTORE_OUTAGE_WINDOW": "3601"}, "ARTSTORE_OUTAGE_WINDOW"),
        ({"ARTSTORE_DATABASE_URL": "mysql://here/there"}, "ARTSTORE_DATABASE_URL"),
    ],
)
def test_contradictory_settings_are_refused(tmp_path: Path, change: dict[str, str], named: str) -> None:
    """Settings that are malformed or contradict each other: refused before anything is opened, by name."""
    environment = {
        "ARTSTORE_DATABASE_URL": f"sqlite:///{tmp_path / 'never.db'}",
        "ARTSTORE_KEY_ENCRYPTION_KEY": new_key(),
        "ARTSTORE_ISSUER": ISSUER,
    }
    code, said = refused(tmp_path, environment | change)
    assert code == 10
    assert named in said
    assert not (tmp_path / "never.db").exists()
