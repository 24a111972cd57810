"""The pair of services in clients/python/examples: no call fails while secrets and keys change under it."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from artstore.identity.v1 import key_service_pb2 as keys_pb
from artstore.identity.v1 import key_service_pb2_grpc
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from tests.processes.service import CALL_SECONDS, ISSUER, Client, Installation, Service, install, until

EXAMPLES = Path(__file__).resolve().parents[2] / "clients/python/examples"
RATE = 200
ROTATIONS = 50
OVERLAP_SECONDS = 0.5
"""How long an old secret lives on: much less than the time that its account goes on with the token it got by it."""


class Example:
    """An example as a process: what it says is JSON, a line each."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / name), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(json.loads(line))

    def says(self, seconds: float = CALL_SECONDS) -> dict[str, Any]:
        """The next line."""
        try:
            return self._said.get(timeout=seconds)
        except queue.Empty:
            self.process.kill()
            raise AssertionError(f"it said nothing: {self.process.communicate()[1][-2000:]}") from None

    def stop(self) -> dict[str, Any]:
        """Ends it; its last line."""
        self.process.terminate()
        said = self.says()
        assert self.process.wait(CALL_SECONDS) == 0
        return said


@contextmanager
def example(name: str, *arguments: str) -> Iterator[Example]:
    made = Example(name, *arguments)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        for stream in (made.process.stdout, made.process.stderr):
            assert stream is not None
        made._reader.join()
        made.process.stdout.close()  # type: ignore[union-attr]
        made.process.stderr.close()  # type: ignore[union-attr]


def account(admin: Client, folder: Path, name: str) -> tuple[Path, str]:
    """A new account's credentials file, and its client_id."""
    message = accounts_pb.ServiceAccount(name=name, role=accounts_pb.ROLE_USER, rate_limit=100_000)
    made = admin.accounts.CreateServiceAccount(
        accounts_pb.CreateServiceAccountRequest(service_account=message), metadata=admin.bearer, timeout=CALL_SECONDS
    )
    path = folder / f"{name}.json"
    path.touch(mode=0o600)
    credentials = {
        "version": 1,
        "issuer": ISSUER,
        "client_id": made.service_account.client_id,
        "client_secret": made.client_secret,
    }
    path.write_text(json.dumps(credentials))
    return path, made.service_account.client_id


def rotate_signing_key(admin: Client) -> None:
    """Has the next key sign, and waits until it does."""
    stub = key_service_pb2_grpc.KeyServiceStub(admin.channel)

    def active() -> str:
        answer = stub.ListSigningKeys(keys_pb.ListSigningKeysRequest(), metadata=admin.bearer, timeout=CALL_SECONDS)
        return next(key.kid for key in answer.signing_keys if key.state == tokens_pb.KEY_STATE_ACTIVE)

    before = active()

    def asked_for() -> str:
        request = keys_pb.RotateSigningKeyRequest()
        return stub.RotateSigningKey(request, metadata=admin.bearer, timeout=CALL_SECONDS).signing_key.kid

    until(lambda: asked_for() != before, CALL_SECONDS, "the last rotation is over")
    until(lambda: active() != before, CALL_SECONDS, "another key signs")


def asked_by(service: Service, client_id: str) -> Counter[str]:
    """What an account asked the identity service for, by its log."""
    lines = (line for line in service.lines() if line.get("client_id") == client_id)
    return Counter(str(line["method"]).rpartition("/")[2] for line in lines)


@pytest.fixture
def installation(sqlite_url: str) -> Installation:
    return install(sqlite_url)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_call_fails_while_secrets_and_keys_rotate(tmp_path: Path, installation: Installation) -> None:
    """200 calls a second, 50 new secrets and 50 new signing keys: every call succeeds, and the service that verifies
    asks for nothing per call."""
    quick = {"ARTSTORE_JWKS_MAX_AGE": "1", "ARTSTORE_KEY_ROTATION_INTERVAL": "0", "ARTSTORE_TOKEN_LIFETIME": "60"}
    with (
        Service(tmp_path / "service", installation.environment | quick) as service,
        Client(service.grpc_address, installation) as admin,
    ):
        theirs, archive_id = account(admin, tmp_path, "archive")
        mine, ingester_id = account(admin, tmp_path, "ingester")
        identity = ("--identity", service.grpc_address)
        with example("archive.py", *identity, "--issuer", ISSUER, "--credentials", str(theirs)) as archive:
            address = archive.says()["address"]
            calls = ("--archive", address, "--rate", str(RATE), "--overlap", str(OVERLAP_SECONDS))
            with example("ingester.py", *identity, "--credentials", str(mine), *calls) as ingester:
                ingester.says()
                for number in range(1, ROTATIONS + 1):
                    admin._bearer = ()  # tokens live for a minute here
                    ingester.process.send_signal(signal.SIGUSR1)
                    rotate_signing_key(admin)
                    assert ingester.says() == {"rotations": number}
                done = ingester.stop()
            served = archive.stop()["served"]
        assert done["rotations"] == ROTATIONS
        assert set(done["ended"]) == {"OK"}, done
        assert done["ended"]["OK"] == served["ingester"] >= RATE * ROTATIONS
        assert asked_by(service, ingester_id)["RotateSecret"] == ROTATIONS
        asked = asked_by(service, archive_id)
        assert asked.total() < 10, asked
