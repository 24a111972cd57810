"""`doctor`: each thing that is wrong with a deployment is named, with what mends it; and asking changes nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from artstore_grpc import doctor
from artstore_grpc.cli.environment import settings as settings_of
from artstore_grpc.doctor import Level
from artstore_grpc.ephemeral.condition import RedisCondition
from artstore_grpc.ephemeral.condition import condition as redis_condition
from artstore_grpc.key_material import generate, sealed
from artstore_grpc.model import KeyState, SigningKey
from artstore_grpc.store import schema
from artstore_grpc.store.compatibility import SCHEMA
from artstore_grpc.store.condition import DatabaseCondition
from artstore_grpc.vault import Vault, new_key, new_root
from tests.api.conftest import ISSUER
from tests.cli import processes
from tests.installation import Installation
from tests.servers import Redis
from tests.transport.machines import Files

NOW = datetime(2030, 1, 31, tzinfo=UTC)
DATABASE = DatabaseCondition(NOW, NOW, NOW, True, False, False, False, False)
REDIS = RedisCondition(NOW, NOW, NOW, "noeviction", True, False, False)


def asked(folder: Path, *options: str, code: int = 0, **variables: str) -> list[dict[str, Any]]:
    """What `doctor` finds, as a program is told."""
    said = processes.run("doctor", "--json", *options, folder=folder, **variables)
    assert said.returncode == code, (said.stdout, said.stderr)
    assert "Traceback" not in said.stderr
    found: list[dict[str, Any]] = json.loads(said.stdout)
    assert all(bool(each["remedy"]) == (each["level"] != "ok") for each in found)
    return found


def of(found: list[dict[str, Any]], check: str) -> list[tuple[str, str]]:
    return [(each["level"], each["found"]) for each in found if each["check"] == check]


def worst(found: list[dict[str, Any]], check: str) -> str:
    levels = [level for level, _ in of(found, check)]
    return max(levels, key=["ok", "warning", "problem"].index)


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    """A folder with an installation on the embedded default in `var`, not running."""
    with Installation(tmp_path / "var"):
        pass
    return tmp_path


def test_an_installation_that_is_well(embedded: Path) -> None:
    """Nothing to mend; nothing is changed; people are told in a table."""
    before = contents(embedded)
    found = asked(embedded, "--strict")
    assert {each["level"] for each in found} == {"ok"}
    assert {each["check"] for each in found} == {"settings", "files", "tls", "schema", "keys"}
    said = processes.run("doctor", folder=embedded)
    assert said.returncode == 0
    assert "WHAT MENDS IT" in said.stdout
    assert contents(embedded) == before


def contents(folder: Path) -> dict[str, Any]:
    """Files, their rights, and, of a database, whether its own content is the same."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, "" if "identity.db" in path.name else path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def test_before_the_first_start(tmp_path: Path) -> None:
    """There is nothing yet, and nothing is made."""
    found = asked(tmp_path)
    assert worst(found, "database") == "warning"
    assert not list(tmp_path.iterdir())
    asked(tmp_path, "--strict", code=13)


def test_settings_that_a_start_refuses(tmp_path: Path) -> None:
    """The sentence of the start, and its exit code."""
    said = processes.run("doctor", folder=tmp_path, ARTSTORE_BCRYPT_COST="99")
    assert (said.returncode, "ARTSTORE_BCRYPT_COST must be" in said.stderr) == (10, True)


WEAK = {
    "bcrypt costs": {"ARTSTORE_BCRYPT_COST": "10"},
    "tokens live": {"ARTSTORE_TOKEN_LIFETIME": "7200"},
    "may fail 5,000 times": {"ARTSTORE_SOURCE_FAILURES": "5000"},
    "large networks": {"ARTSTORE_TRUSTED_PROXIES": "10.0.0.0/8"},
    "debug": {"ARTSTORE_LOG_LEVEL": "debug"},
    "http URL": {"ARTSTORE_ENVIRONMENT": "prod", "ARTSTORE_ISSUER": "http://issuer.example"},
    "plain text": {"ARTSTORE_ENVIRONMENT": "prod", "ARTSTORE_INSECURE_PUBLIC": "true"},
    "embedded SQLite": {"ARTSTORE_ENVIRONMENT": "prod"},
    "counts limits": {
        "ARTSTORE_DATABASE_URL": "postgresql://h/d",
        "ARTSTORE_ISSUER": "https://issuer.example",
        "ARTSTORE_KEY_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(),
    },
}


@pytest.mark.parametrize("said", WEAK)
def test_weak_settings(said: str) -> None:
    """Each is named; the defaults have none of them."""
    assert [finding.level for finding in doctor.weak_settings(settings_of({}))] == [Level.OK]
    found = [finding.found for finding in doctor.weak_settings(settings_of(WEAK[said]))]
    assert [each for each in found if said in each], found


def test_files_that_others_may_read_or_change(embedded: Path) -> None:
    """The key's file, by its rights: a problem where others may change it; a warning where every user may read it."""
    key = embedded / "var" / "key-encryption.key"
    key.chmod(0o620)
    found = asked(embedded, code=13)
    assert worst(found, "files") == "problem"
    assert str(key.relative_to(embedded)) in of(found, "files")[0][1]
    key.chmod(0o644)
    assert worst(asked(embedded), "files") == "ok", "nobody else may enter its folder"
    public = Path(f"/tmp/artstore-doctor-{uuid4().hex[:8]}")
    try:
        public.mkdir(mode=0o755)
        shutil.copy(key, public / "key")
        (public / "key").chmod(0o644)
        settings = settings_of({})
        (finding,) = doctor.files(settings, {"ARTSTORE_KEY_ENCRYPTION_KEY_FILE": public / "key"})
        assert finding.level is Level.WARNING
        assert "every user" in finding.found
        (public / "key").chmod(0o600)
        (finding,) = doctor.files(settings, {"ARTSTORE_KEY_ENCRYPTION_KEY_FILE": public / "key"})
        assert finding.level is Level.OK
    finally:
        shutil.rmtree(public)


def test_the_first_secret_left_behind(embedded: Path) -> None:
    """In production the first administrator's file doesn't belong there."""
    (embedded / "var" / "administrator.env").write_text("x")
    found = asked(embedded, ARTSTORE_ENVIRONMENT="prod")
    assert any("administrator" in said for _, said in of(found, "files"))


def test_certificates(tmp_path: Path) -> None:
    """One that expires soon, one that has, files that don't belong together, and plain text on a public address."""
    files = Files(tmp_path)
    settings = settings_of(files.variables)
    (finding,) = doctor.tls(settings, datetime.now(UTC))
    assert finding.level is Level.OK
    files.replace(not_after=datetime.now(UTC) + timedelta(days=3))
    (finding,) = doctor.tls(settings, datetime.now(UTC))
    assert (finding.level, "expires at" in finding.found) == (Level.WARNING, True)
    (finding,) = doctor.tls(settings, datetime.now(UTC) + timedelta(days=4))
    assert (finding.level, "expired" in finding.found) == (Level.PROBLEM, True)
    (finding,) = doctor.tls(settings_of({"ARTSTORE_GRPC_ADDRESS": "0.0.0.0:1", "ARTSTORE_ISSUER": "https://i"}), NOW)
    assert (finding.level, "plain text" in finding.found) == (Level.PROBLEM, True)


def test_another_key(embedded: Path) -> None:
    """A key-encryption key that isn't this database's: both are named by their ids, and the staged files stay."""
    (embedded / "var" / "key-encryption.key").write_text(new_key())
    found = asked(embedded, code=13)
    assert "encrypted under local:" in of(found, "keys")[0][1]


def test_a_damaged_signing_key(embedded: Path) -> None:
    """It is named, with how it is ended."""
    with closing(sqlite3.connect(embedded / "var" / "identity.db")) as database, database:
        (sealed,) = database.execute("SELECT sealed FROM signing_keys").fetchone()
        database.execute("UPDATE signing_keys SET sealed = ?", [sealed[:-1] + bytes([sealed[-1] ^ 1])])
    found = asked(embedded, code=13)
    assert "damaged: " in of(found, "keys")[0][1]


def test_a_schema_of_another_release(embedded: Path) -> None:
    """Older or newer, in the words of a start."""
    with closing(sqlite3.connect(embedded / "var" / "identity.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'future'")
    found = asked(embedded, code=13)
    assert "newer than this program" in of(found, "schema")[0][1]


def test_a_newer_schema_that_takes_this_program(embedded: Path) -> None:
    """A later release has expanded it: well, and said."""
    with closing(sqlite3.connect(embedded / "var" / "identity.db")) as database, database:
        database.execute(f"UPDATE alembic_version SET version_num = '{SCHEMA + 1:04}_from_{SCHEMA:04}'")
    found = asked(embedded)
    assert of(found, "schema") == [("ok", f"newer ({SCHEMA + 1:04}_from_{SCHEMA:04}), and takes this program")]


@pytest.fixture
def variables(postgres_url: str, redis_url: str) -> dict[str, str]:
    """The settings of a service on both servers, as the database's superuser."""
    return {
        "ARTSTORE_DATABASE_URL": postgres_url,
        "ARTSTORE_REDIS_URL": redis_url,
        "ARTSTORE_ISSUER": ISSUER,
        "ARTSTORE_KEY_ENCRYPTION_KEY": new_key(),
    }


def test_a_superuser(variables: dict[str, str], tmp_path: Path) -> None:
    """A warning, and a problem in production; that there are no keys yet is said."""
    found = asked(tmp_path, **variables)
    assert of(found, "database role") == [("warning", "it is a superuser")]
    assert of(found, "keys") == [("warning", "the database has no keys yet")]
    found = asked(tmp_path, code=13, **variables | {"ARTSTORE_ENVIRONMENT": "prod"})
    assert worst(found, "database role") == "problem"


def test_the_service_s_own_role(
    variables: dict[str, str], postgres_url: str, run_role: str, run_url: str, tmp_path: Path
) -> None:
    """Without its grants it is a problem that names what mends it; with them all is well, and both servers' clocks were
    compared."""
    own = variables | {"ARTSTORE_DATABASE_URL": run_url}
    found = asked(tmp_path, code=13, **own)
    assert of(found, "database role") == [("problem", "it may not read the tables")]
    asyncio.run(schema.upgrade(postgres_url, run_role))
    key = variables["ARTSTORE_KEY_ENCRYPTION_KEY"]
    with Installation(tmp_path / "service", database_url=run_url, issuer=ISSUER, key_encryption_key=key):
        found = asked(tmp_path, "--strict", **own)
    assert {each["level"] for each in found} == {"ok"}
    assert len(of(found, "clock")) == 2


def test_what_can_not_be_reached(tmp_path: Path) -> None:
    """Each is a problem of its own, and the rest is looked at all the same; no URL is repeated."""
    variables = {
        "ARTSTORE_DATABASE_URL": "postgresql://somebody:hunter2@127.0.0.1:1/x",
        "ARTSTORE_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0",
        "ARTSTORE_ISSUER": "https://issuer.example",
        "ARTSTORE_KEY_ENCRYPTION_KEY": new_key(),
    }
    found = asked(tmp_path, code=13, **variables)
    assert (worst(found, "database"), worst(found, "redis")) == ("problem", "problem")
    assert "hunter2" not in json.dumps(found)


JUDGED_DATABASES = {
    "database role": [{"superuser": True}, {"alters": True}, {"rewrites": True}],
    "database": [{"near": False}],
    "clock": [{"time": NOW - timedelta(seconds=2)}, {"time": NOW + timedelta(minutes=1)}],
}
JUDGED_REDIS = {
    "redis": [{"policy": "allkeys-lru"}, {"policy": None}, {"near": False, "password": True}, {"near": False}],
    "clock": [{"time": NOW - timedelta(seconds=2)}, {"time": NOW + timedelta(minutes=1)}],
}


def test_judgements() -> None:
    """What is well is ok, each single thing that isn't is named."""
    settings = settings_of({})
    assert {finding.level for finding in doctor.judged_database(DATABASE, settings)} == {Level.OK}
    assert {finding.level for finding in doctor.judged_redis(REDIS)} == {Level.OK}
    for check, changes in JUDGED_DATABASES.items():
        for change in changes:
            (bad,) = [
                f for f in doctor.judged_database(replace(DATABASE, **change), settings) if f.level is not Level.OK
            ]
            assert bad.check == check
    for check, changes in JUDGED_REDIS.items():
        for change in changes:
            bad_ones = [f for f in doctor.judged_redis(replace(REDIS, **change)) if f.level is not Level.OK]
            assert {each.check for each in bad_ones} == {check}
    (off,) = doctor.clock("it", NOW, NOW + timedelta(minutes=1), NOW)
    assert (off.level, "60.0 s" in off.found) == (Level.PROBLEM, True)


def test_judged_keys() -> None:
    """No key that signs, one that has signed for too long, one that doesn't open; a revoked one needn't."""
    vault = Vault(new_root())
    made = sealed(vault, generate("ES256"), NOW, 60)
    signing = replace(made, state=KeyState.ACTIVE, activate_time=NOW)
    damaged = replace(made, kid="damaged", state=KeyState.RETIRED)
    settings = settings_of({})

    def judged(*keys: SigningKey, later: timedelta = timedelta(0)) -> list[tuple[Level, str]]:
        return [(each.level, each.found) for each in doctor.judged_keys([*keys], vault, settings, NOW + later)]

    ((level, said),) = judged(signing)
    assert (level, "signs by ES256" in said) == (Level.OK, True)
    assert judged(made) == [(Level.WARNING, "no key signs yet")]
    assert judged(signing, damaged) == [(Level.PROBLEM, "damaged: damaged")]
    assert judged(signing, replace(damaged, state=KeyState.REVOKED))[0][0] is Level.OK
    assert judged(signing, later=timedelta(days=4)) == [(Level.WARNING, "the active key has signed for 4 days")]


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


async def test_a_redis_that_forgets(own_redis: Redis) -> None:
    """Its real policy is asked, and a wrong one is a problem: used assertions would be good again."""
    import redis.asyncio

    async with redis.asyncio.from_url(own_redis.url()) as client:
        assert (await redis_condition(own_redis.url())).policy == "noeviction"
        await client.config_set("maxmemory-policy", "allkeys-lru")
        found = await redis_condition(own_redis.url())
        assert [each.level for each in doctor.judged_redis(found)][-1] is Level.PROBLEM
        await client.execute_command("ACL", "SETUSER", "limited", "on", "nopass", "~*", "+@all", "-config")
        url = own_redis.url().replace("unix://", "unix://limited:x@")
        assert (await redis_condition(url)).policy is None
