"""Real processes: one that dies in the middle of a rotation, and what the commands say and do."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import update

from artstore_grpc.store import tables
from artstore_grpc.store.sql import SqlStore
from tests.cli.processes import run as command
from tests.processes import chain
from tests.processes.service import CALL_SECONDS, Client, Installation, Service, install, until
from tests.rotation import served as served_module

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TAKEN_OVER_SECONDS = 120.0
"""A lease of 30 s, a turn every 30 s, on a busy machine."""


@pytest.fixture
def installation(store_url: str) -> Installation:
    return install(store_url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the sink writes to."""
    made = tmp_path / "sink"
    made.mkdir()
    return made


@contextmanager
def served(tmp_path: Path, folder: Path, installation: Installation, count: int) -> Iterator[list[Service]]:
    program = [sys.executable, served_module.__file__, str(folder)]
    services = [Service(tmp_path / str(n), installation.environment, program) for n in range(count)]
    try:
        yield [service.start() for service in services]
    finally:
        for service in services:
            service.kill()


def managed(client: Client, name: str = "managed") -> tuple[pb.ServiceAccount, str]:
    policy = pb.RotationPolicy(
        mode=pb.ROTATION_MODE_MANAGED, schedule="0 3 * * 1", overlap=Duration(seconds=3600), sink="folder"
    )
    account = pb.ServiceAccount(name=name, role=pb.ROLE_USER, rotation_policy=policy)
    request = pb.CreateServiceAccountRequest(service_account=account)
    made = client.accounts.CreateServiceAccount(request, metadata=client.bearer, timeout=CALL_SECONDS)
    return made.service_account, made.client_secret


def make_due(installation: Installation, account_id: str) -> None:
    """Schedules leave an hour at least: the time is moved in the store."""

    async def move() -> None:
        store = SqlStore(installation.environment["ARTSTORE_DATABASE_URL"])
        past = datetime.now(UTC) - timedelta(seconds=1)
        moved = update(tables.accounts).where(tables.accounts.c.id == account_id)
        async with store._database.transaction() as transaction:
            await transaction.execute(moved.values(next_rotate_time=past, due_time=past))
        await store.close()

    asyncio.run(move())


def asked(folder: Path) -> list[list[str]]:
    log = folder / "asked"
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_replica_dies_in_the_middle(tmp_path: Path, folder: Path, installation: Installation, when: str) -> None:
    """kill -9 of the replica that rotates, before or after the sink has the secret: another one delivers the same, and
    both secrets work all along; there was one rotation."""
    with served(tmp_path, folder, installation, 2) as services, Client(services[0].grpc_address, installation) as first:
        account, old = managed(first)
        (folder / when).touch()
        make_due(installation, account.id)
        until(lambda: list(folder.glob(f"{when}.*")), TAKEN_OVER_SECONDS, "a delivery under way")
        (folder / when).unlink()
        (hung,) = folder.glob(f"{when}.*")
        victim = next(service for service in services if str(service.pid) == hung.suffix[1:])
        survivor = next(service for service in services if service is not victim)
        victim.kill()
        with Client(survivor.grpc_address, installation) as client:
            client.issue(account.client_id, old)

            def delivered() -> bool:
                request = pb.GetServiceAccountRequest(id=account.id)
                got = client.accounts.GetServiceAccount(request, metadata=client.bearer, timeout=CALL_SECONDS)
                return len(got.service_account.secrets) == 2 and not got.service_account.HasField("secret_delivery")

            until(delivered, TAKEN_OVER_SECONDS, "delivered by the other one")
            for secret in (old, (folder / account.client_id).read_text()):
                assert client.issue(account.client_id, secret).access_token
        assert len({secret_id for _, secret_id in asked(folder)}) == 1
        assert {pid for pid, _ in asked(folder)} == {str(victim.pid), str(survivor.pid)}
    kinds = chain.verified(installation.environment["ARTSTORE_DATABASE_URL"])
    assert (kinds["secret.rotated"], kinds["secret.delivered"]) == (1, 1)


def test_the_commands(tmp_path: Path, folder: Path, installation: Installation) -> None:
    """`accounts create --rotation managed`, `rotation plan`, `rotation run --dry-run`, `rotation run`: a table for
    people, JSON for programs, and what they say is what is done. Refusals name the option, or the field."""
    with served(tmp_path, folder, installation, 1) as (service,):
        who = installation.administrator
        environment = {
            "ARTSTORE_TARGET": service.grpc_address,
            "ARTSTORE_CLIENT_ID": who.client_id,
            "ARTSTORE_CLIENT_SECRET": who.client_secret,
        }

        def cli(*arguments: str, code: int = 0) -> str:
            ended = command(*arguments, folder=tmp_path, **environment)
            assert ended.returncode == code, ended.stdout + ended.stderr
            return ended.stdout if code == 0 else ended.stderr

        def parsed(*arguments: str) -> Any:
            return json.loads(cli(*arguments, "--json"))

        options = ("--rotation", "managed", "--schedule", "0 3 * * 1", "--overlap", "1h", "--sink", "folder")
        made = parsed("accounts", "create", "--name", "ingester", "--role", "user", *options)
        account_id = made["id"]
        assert made["rotation_policy"] == {
            "mode": "managed",
            "schedule": "0 3 * * 1",
            "overlap": "3600s",
            "sink": "folder",
            "destination": "",
        }
        assert "managed, at 0 3 * * 1 UTC, overlap 1:00:00, to folder" in cli("accounts", "get", account_id)
        plan = parsed("rotation", "plan", "--until", "100d")
        assert [(step["action"], step["client_id"]) for step in plan if step["account_id"] == account_id] == [
            ("rotate", made["client_id"]),
            ("warn", made["client_id"]),
            ("expire", made["client_id"]),
        ]
        assert [step["time"] for step in plan] == sorted(step["time"] for step in plan)
        assert "Its schedule is 0 3 * * 1." in cli("rotation", "plan")
        assert parsed("rotation", "run", "--dry-run") == []
        make_due(installation, account_id)
        results = parsed("rotation", "run", "--dry-run") + parsed("rotation", "run")
        steps = [
            (result["step"]["action"], result["done"])
            for result in results
            if result["step"]["account_id"] == account_id
        ]
        # The service may have done it between the two.
        assert steps in ([("rotate", False), ("rotate", True)], [("rotate", False)], [])
        until((folder / made["client_id"]).exists, TAKEN_OVER_SECONDS, "delivered")
        assert "the service's settings" in cli(
            "accounts",
            "update",
            account_id,
            "--rotation",
            "managed",
            "--schedule",
            "0 3 * * 1",
            "--sink",
            "none",
            code=10,
        )
        assert "--overlap needs --rotation" in cli("accounts", "update", account_id, "--overlap", "1h", code=2)
        assert "schedule" in cli(
            "accounts", "update", account_id, "--rotation", "self", "--schedule", "@daily", code=10
        )
        assert "rotation_policy" not in parsed("accounts", "update", account_id, "--rotation", "manual")
