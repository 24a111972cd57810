"""Key-encryption keys around running processes: wrong, missing, in a key service, changed under load and by kill -9."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb

from artstore_grpc.key_encryption import LocalKey
from artstore_grpc.settings import Settings
from artstore_grpc.vault import WrongKey, new_key
from tests.kms.running import KmsPlugin
from tests.processes import chain
from tests.processes.service import (
    CALL_SECONDS,
    COMMAND,
    ISSUER,
    Client,
    Installation,
    Service,
    code_of,
    install,
    until,
)
from tests.processes.test_refusals import refused
from tests.roots import opened_root

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = 8
REKEY_SECONDS = 60.0
KEY = "ARTSTORE_KEY_ENCRYPTION_KEY"
KMS = "ARTSTORE_KEY_ENCRYPTION_KMS"


@pytest.fixture
def plugin() -> Iterator[KmsPlugin]:
    """A KMS v2 plugin of the test's own."""
    with KmsPlugin() as running:
        yield running


def spawned(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    """`artstore-grpc keys rekey`, running."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [*COMMAND, "keys", "rekey", "--json", *arguments],
        cwd=folder,
        env=Service(folder, environment).environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def rekeyed(folder: Path, environment: dict[str, str], *arguments: str) -> dict[str, str]:
    """What a rekey prints; fails unless it succeeds."""
    process = spawned(folder, environment, *arguments)
    out, err = process.communicate(timeout=REKEY_SECONDS)
    assert process.returncode == 0, err
    done: dict[str, str] = json.loads(out)
    return done


def key_file(path: Path, key: str) -> str:
    path.touch(mode=0o600)
    path.write_text(key)
    return str(path)


def with_kms(environment: dict[str, str], plugin: KmsPlugin) -> dict[str, str]:
    return environment | {KEY: "", KMS: plugin.url}


def test_a_rekey_under_load(tmp_path: Path, installation: Installation) -> None:
    """While a service issues tokens and creates accounts its root key is encrypted under another key: no call fails, it
    goes on, and the next start takes the new key and refuses the old, naming both."""
    key, old = new_key(), installation.environment[KEY]
    with Service(tmp_path / "service", installation.environment) as service:
        with Client(service.grpc_address, installation) as client, ThreadPoolExecutor(2) as pool:
            made = client.create("before")
            who = (made.service_account.client_id, made.client_secret)
            load = [pool.submit(client.issue, *who) for _ in range(60)]
            load += [pool.submit(client.create, f"account {number}") for number in range(20)]
            done = rekeyed(tmp_path, installation.environment, "--new-key-file", key_file(tmp_path / "new", key))
            for call in load:
                call.result()
            assert done == {"old_key": LocalKey(old).id, "new_key": LocalKey(key).id, "sealed_again": None}
            assert client.issue(*who).access_token
            until(lambda: len(client.key_ids()) == 2, CALL_SECONDS, "a second key is published")
            token, key_ids = client.issue(*who).access_token, client.key_ids()
        service.terminate()
        assert service.wait() == 0
        assert LocalKey(old).id == next(line["key"] for line in service.lines() if line["event"] == "root key opened")
        assert not any(secret in service.errors for secret in (old, key))
    code, said = refused(tmp_path, installation.environment)
    assert code == 10
    assert LocalKey(old).id in said
    assert LocalKey(key).id in said
    environment = installation.environment | {KEY: key}
    again = rekeyed(tmp_path, environment, "--new-key-file", str(tmp_path / "new"))
    assert again["old_key"] == again["new_key"]
    with Service(tmp_path / "after", environment) as service, Client(service.grpc_address, installation) as client:
        assert client.issue(*who).access_token
        assert client.introspect(token).active
        assert client.key_ids() == key_ids
        assert service.metrics()["artstore_bcrypt_duration_seconds_count"] <= 1  # the administrator's, who introspects
    assert chain.verified(environment["ARTSTORE_DATABASE_URL"])["root_key.rewrapped"] == 1


def test_a_rekey_that_is_killed(tmp_path: Path, installation: Installation) -> None:
    """kill -9 at random points of many rekeys, amid the writes of a service: after each the database opens with the one
    key or the other, the refusal of the other names both, and the last rekey ends what the killed ones began."""
    dice, old = random.Random(), installation.environment[KEY]
    environment, moved = dict(installation.environment), 0
    with (
        Service(tmp_path / "service", environment) as service,
        Client(service.grpc_address, installation) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        load = [pool.submit(client.create, f"account {number}") for number in range(200)]
        duration = measured(tmp_path, environment)
        for number in range(KILLS):
            key = new_key()
            process = spawned(tmp_path, environment, "--new-key-file", key_file(tmp_path / f"new {number}", key))
            time.sleep(duration * (0.5 + 0.6 * dice.random()))
            process.kill()
            process.communicate()
            if opens_with_new(environment["ARTSTORE_DATABASE_URL"], environment[KEY], key):
                environment, moved = environment | {KEY: key}, moved + 1
        last = new_key()
        done = rekeyed(tmp_path, environment, "--new-key-file", key_file(tmp_path / "last", last))
        assert done["new_key"] == LocalKey(last).id
        for call in load:
            call.result()
    environment[KEY] = last
    with Service(tmp_path / "after", environment) as service, Client(service.grpc_address, installation) as client:
        assert client.bearer
    print(f"{KILLS} kills, {moved} of them after the commit")
    rows = chain.verified(environment["ARTSTORE_DATABASE_URL"])
    assert rows["root_key.rewrapped"] == moved + 1
    assert old != last


def measured(folder: Path, environment: dict[str, str]) -> float:
    """Seconds that a rekey to the present key takes, which does nothing."""
    started = time.monotonic()
    rekeyed(folder, environment, "--new-key-file", key_file(folder / "present", environment[KEY]))
    return time.monotonic() - started


def opens_with_new(database_url: str, old: str, new: str) -> bool:
    """Whether the database opens with the new key; exactly one of the two opens it, and the other's refusal names
    both."""
    opens, said = [], ""
    for key in (old, new):
        settings = Settings(database_url=database_url, issuer=ISSUER, key_encryption_key=key)
        try:
            opens.append(bool(asyncio.run(opened_root(settings))))
        except WrongKey as error:
            opens.append(False)
            said += str(error)
    assert LocalKey(old).id in said
    assert LocalKey(new).id in said
    assert sorted(opens) == [False, True]
    return opens[1]


def embedded(folder: Path) -> dict[str, str]:
    return {"ARTSTORE_DATA_DIR": str(folder / "var"), "ARTSTORE_ISSUER": ISSUER}


def test_the_embedded_key_is_replaced(tmp_path: Path) -> None:
    """`keys rekey` without a key: the file holds a fresh one, of mode 0600, and the next start takes it up."""
    file = tmp_path / "var" / "key-encryption.key"
    with Service(tmp_path / "first", embedded(tmp_path)):
        before = file.read_text()
        done = rekeyed(tmp_path, embedded(tmp_path))
    assert file.read_text() != before
    assert file.stat().st_mode & 0o777 == 0o600
    assert done["old_key"] == LocalKey(before).id
    assert done["new_key"] == LocalKey(file.read_text()).id
    with Service(tmp_path / "second", embedded(tmp_path)):
        pass
    file.write_text(before)
    code, said = refused(tmp_path, embedded(tmp_path))
    assert code == 10
    assert done["new_key"] in said


def test_an_embedded_rekey_that_is_killed(tmp_path: Path) -> None:
    """kill -9 at random points: the embedded default starts each time by itself, with whichever key it needs."""
    dice, environment = random.Random(), embedded(tmp_path)
    with Service(tmp_path / "first", environment):
        pass
    started = time.monotonic()
    rekeyed(tmp_path, environment)
    duration = time.monotonic() - started
    for number in range(KILLS // 2):
        process = spawned(tmp_path, environment)
        time.sleep(duration * (0.5 + 0.6 * dice.random()))
        process.kill()
        process.communicate()
        with Service(tmp_path / str(number), environment):
            pass
    chain.verified(f"sqlite:///{tmp_path / 'var' / 'identity.db'}")


def test_an_embedded_rekey_that_ended_before_its_rename(tmp_path: Path) -> None:
    """The commit is there, the file not yet in its place: the next start puts it there."""
    environment, file = embedded(tmp_path), tmp_path / "var" / "key-encryption.key"
    with Service(tmp_path / "first", environment):
        before = file.read_text()
    done = rekeyed(tmp_path, environment)
    file.rename(file.with_name(f"{file.name}.{done['new_key'].removeprefix('local:')}"))
    file.write_text(before)
    with Service(tmp_path / "second", environment):
        assert LocalKey(file.read_text()).id == done["new_key"]
    assert [path.name for path in file.parent.glob("key-encryption.key*")] == [file.name]


def test_a_missing_embedded_key_is_named(tmp_path: Path) -> None:
    """Without its key file the embedded default refuses to start, says which key is missing, and makes no other."""
    environment, file = embedded(tmp_path), tmp_path / "var" / "key-encryption.key"
    with Service(tmp_path / "first", environment):
        key = LocalKey(file.read_text())
    file.unlink()
    code, said = refused(tmp_path, environment)
    assert code == 10
    assert key.id in said
    assert "missing" in said
    assert not file.exists()


def test_a_new_root_key(tmp_path: Path, installation: Installation) -> None:
    """With every process stopped, `--new-root --yes` makes all that was sealed anew: the same signing key and secrets
    go on, each secret's first check is bcrypt's again; without --yes it refuses."""
    environment = installation.environment
    with Service(tmp_path / "first", environment) as service, Client(service.grpc_address, installation) as client:
        until(lambda: len(client.key_ids()) == 2, CALL_SECONDS, "a second key is published")
        token, key_ids = client.bearer[0][1].removeprefix("Bearer "), client.key_ids()
    process = spawned(tmp_path, environment, "--new-root")
    _, err = process.communicate(timeout=REKEY_SECONDS)
    assert process.returncode == 2
    assert "--yes" in err
    assert rekeyed(tmp_path, environment, "--new-root", "--yes")["sealed_again"] == len(key_ids) + 1  # the ledger's
    with Service(tmp_path / "second", environment) as service, Client(service.grpc_address, installation) as client:
        assert client.key_ids() == key_ids
        assert client.introspect(token).active
        assert service.metrics()["artstore_bcrypt_duration_seconds_count"] == 1


def test_a_service_with_a_key_service(tmp_path: Path, installation: Installation, plugin: KmsPlugin) -> None:
    """Moved to a KMS it starts with the KMS, goes on while that is down, and issues; the old key is refused by name."""
    rekeyed(tmp_path, installation.environment, "--new-kms", plugin.url)
    environment = with_kms(installation.environment, plugin)
    with Service(tmp_path / "service", environment) as service, Client(service.grpc_address, installation) as client:
        plugin.stop()
        assert client.create("while the KMS is down").client_secret
    code, said = refused(tmp_path, installation.environment)
    assert code == 10
    assert "kms:key-1" in said
    assert LocalKey(installation.environment[KEY]).id in said


def test_a_start_without_its_key_service_waits(tmp_path: Path, store_url: str, plugin: KmsPlugin) -> None:
    """The KMS is down: it listens, alive and unready, says what it waits for, and is ready once the KMS is there."""
    installation = install(store_url)
    rekeyed(tmp_path, installation.environment, "--new-kms", plugin.url)
    plugin.stop()
    service = Service(tmp_path / "service", with_kms(installation.environment, plugin))
    try:
        assert "kms.sock" in service.spawn().logged("waiting for the key service")["cause"]
        with Client(service.grpc_address, installation) as client:
            assert client.serving("liveness")
            assert not client.serving("readiness")
            assert code_of(client.key_ids) is grpc.StatusCode.UNAVAILABLE
            # A denial has a sealed cause; there is nothing yet to seal it with, and that must not be a defect.
            forged = (("authorization", "Bearer forged"),)
            get = accounts_pb.GetServiceAccountRequest(id="x")
            denied = code_of(lambda: client.accounts.GetServiceAccount(get, metadata=forged))
            assert denied in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE)
            plugin.start()
            until(lambda: client.serving("readiness"), 10.0, "ready")
            assert client.bearer
    finally:
        service.kill()


def test_a_key_service_with_another_key_is_refused(
    tmp_path: Path, installation: Installation, plugin: KmsPlugin
) -> None:
    """A KMS that has another key: refused at the start, naming both; so is one for a database with a local key."""
    code, said = refused(tmp_path / "local", with_kms(installation.environment, plugin))
    assert code == 10
    assert LocalKey(installation.environment[KEY]).id in said
    assert "kms:key-1" in said
    rekeyed(tmp_path, installation.environment, "--new-kms", plugin.url)
    plugin.use("key-2")
    plugin.forget("key-1")
    code, said = refused(tmp_path / "other", with_kms(installation.environment, plugin))
    assert code == 10
    assert "kms:key-1" in said
    assert "kms:key-2" in said


def test_a_rekey_to_a_key_service_that_is_down(tmp_path: Path, installation: Installation) -> None:
    """It is refused as unavailable, and the database opens with the key that it had."""
    process = spawned(tmp_path, installation.environment, "--new-kms", "unix:///nowhere/kms.sock")
    _, err = process.communicate(timeout=REKEY_SECONDS)
    assert process.returncode == 8
    assert "KEY_SERVICE_UNAVAILABLE" in err
    with Service(tmp_path / "service", installation.environment):
        pass
