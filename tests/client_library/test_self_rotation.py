"""Secrets that rotate themselves, against the real service: killed at every step and at random, by several replicas,
in a file and in a Kubernetes Secret."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from artstore.identity import (
    AdminClient,
    CredentialsFile,
    FailedPrecondition,
    KubernetesSecret,
    SyncTokenSource,
    TokenSource,
)
from artstore.identity.v1.service_account_service_pb2 import RotateSecretResponse

from clients.python.tests.cluster import Cluster, running
from tests.client_library import rotator
from tests.client_library.conftest import credentials_file
from tests.installation import Account, Installation

STEPS = 9
"""Of one rotation: read, claim, read, ask, note, read, prove, promote; and one more."""
KILLS = 100
DAY = timedelta(hours=25)
"""When an overlap is over."""


@pytest.fixture
def path(service: Installation, user: Account, tmp_path: Path) -> Path:
    return credentials_file(tmp_path / "credentials.json", service, user)


def target(service: Installation) -> str:
    return str(service.started.grpc_address)


def works(service: Installation, path: Path) -> None:
    """A process that starts now gets a token."""
    with SyncTokenSource(target(service), credentials=CredentialsFile(path, rotates=False)) as source:
        assert source.token()


def ended(service: Installation, path: Path) -> None:
    """A process that starts now ends what was left, and the file is whole."""
    with rotator.source(target(service), str(path)) as source:
        assert source.token()
        assert source.rotation is not None
        source._open().carry_out(source.rotation.rotate(again=False))
        assert source.token(scope="storage.read")
    assert "rotation" not in json.loads(path.read_text())


def rotations(service: Installation, account: Account) -> int:
    """How many secrets the account was given after its first, by the ledger."""

    async def count() -> int:
        who = service.administrator
        async with AdminClient(target(service), client_id=who.client_id, client_secret=who.client_secret) as admin:
            events = [event async for event in admin.list_audit_events(filter='kind = "secret.rotated"')]
        return sum(event.subject == account.id for event in events)

    return asyncio.run(count())


@pytest.mark.slow
@pytest.mark.parametrize("steps", range(1, STEPS + 1))
def test_killed_after_each_step(service: Installation, user: Account, path: Path, steps: int) -> None:
    """SIGKILL after any step of a rotation: what starts next has a working secret, and ends the rotation."""
    with rotator.child(rotator.dies_after, target(service), str(path), steps) as process:
        process.join(rotator.STOP_SECONDS)
        assert process.exitcode == (-9 if steps < STEPS else 0)
    works(service, path)
    ended(service, path)
    secret = json.loads(path.read_text())["client_secret"]
    assert (secret != user.secret) == (rotations(service, user) > 0) == (steps > 1)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_killed_a_hundred_times_at_random(service: Installation, user: Account, path: Path) -> None:
    """SIGKILL at a random moment of a rotation, a hundred times over: always a working secret; half of the rotations
    are taken up while the service still repeats its answer, half when it no longer does."""
    chance = random.Random(5)
    context = rotator.context()
    found: Counter[str] = Counter()
    took = rotator.STOP_SECONDS  # the first one is left alone, to learn how long one takes
    for number in range(KILLS + 1):
        ready = context.Event()
        with rotator.child(rotator.rotates, target(service), str(path), ready) as process:
            assert ready.wait(rotator.STOP_SECONDS)
            began = time.monotonic()
            process.join(chance.uniform(0, took) if number else took)
            if not number:
                took = time.monotonic() - began
            process.kill()
        works(service, path)
        claim = json.loads(path.read_text()).get("rotation")
        found["whole" if claim is None else "noted" if "client_secret" in claim else "claimed"] += 1
        took *= 0.95 if claim is None else 1.05  # whatever the machine is busy with, half of them end
        if claim is None:
            service.clock.advance(DAY)
        else:
            service.clock.advance(timedelta(minutes=11) if chance.random() < 0.5 else timedelta(0))
    ended(service, path)
    assert min(found[each] for each in ("whole", "claimed")) >= KILLS / 10, found
    assert rotations(service, user) >= KILLS / 10


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_four_processes_share_a_file(service: Installation, user: Account, path: Path) -> None:
    """Twenty days before the secret's end all of them see that it is due: it is rotated once, every token is got, and
    all go on with the new secret."""
    ahead = timedelta(days=70)
    service.clock.advance(ahead)
    context = rotator.context()
    stop, told = context.Event(), context.Queue()
    children = [rotator.child(rotator.serves, target(service), str(path), ahead, stop, told) for _ in range(4)]
    processes = [child.__enter__() for child in children]
    try:
        deadline = time.monotonic() + 30
        while json.loads(path.read_text())["client_secret"] == user.secret:
            assert time.monotonic() < deadline, "it was not rotated"
            assert all(process.is_alive() for process in processes)
            time.sleep(0.05)
        settled = time.monotonic() + 2  # ten looks of each at whether another is due
        while time.monotonic() < settled:
            assert all(process.is_alive() for process in processes)
            time.sleep(0.05)
        stop.set()
        answers = [told.get(timeout=rotator.STOP_SECONDS) for _ in processes]
        for process in processes:
            process.join(rotator.STOP_SECONDS)
        assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    finally:
        for child in children:
            child.__exit__(None, None, None)
        told.close()
        told.join_thread()
    assert sum(rotated for _, _, rotated in answers) == 1
    assert {secret for _, secret, _ in answers} == {json.loads(path.read_text())["client_secret"]}
    assert all(count > 10 for count, _, _ in answers)
    assert rotations(service, user) == 1


async def test_a_user_writes_one_line(service: Installation, user: Account, tmp_path: Path) -> None:
    """A source with a credentials file whose secret ends soon: the secret is replaced beside, and tokens go on."""
    soon = (datetime.now(UTC) + timedelta(days=10)).isoformat()
    service.clock.advance(timedelta(days=80))
    path = credentials_file(tmp_path / "credentials.json", service, user, secret_expire_time=soon)
    ahead = timedelta(days=80)
    async with TokenSource(
        target(service), credentials=CredentialsFile(path), now=lambda: datetime.now(UTC) + ahead
    ) as source:
        assert await source.token()
        async with asyncio.timeout(20):
            while json.loads(path.read_text())["client_secret"] == user.secret:  # noqa: ASYNC110  # another's file
                await asyncio.sleep(0.01)
        assert await source.token(scope="storage.read")
        assert source.rotation is not None
        assert source.rotation.failure is None
    content = json.loads(path.read_text())
    assert set(content) >= {"version", "issuer", "client_id", "client_secret", "secret_expire_time"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_secrets_in_use(service: Installation, user: Account, path: Path) -> None:
    """A second rotation within the overlap waits: the working secret stays, and works."""
    with rotator.source(target(service), str(path)) as source:
        assert source.token()
        assert source.rotate_secret()
        before = path.read_bytes()
        with pytest.raises(FailedPrecondition):
            source.rotate_secret()
    assert path.read_bytes() == before
    works(service, path)


@pytest.fixture
def cluster(service: Installation, user: Account, tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "pod"
    folder.mkdir()
    with running(folder) as made:
        content = {"version": 1, "client_id": user.client_id, "client_secret": user.secret, "issuer": service.issuer}
        made.put("credentials.json", json.dumps(content).encode())
        yield made


def in_cluster(service: Installation, cluster: Cluster, **options: Any) -> SyncTokenSource:
    store = KubernetesSecret("storage", "ingester", api=cluster.url, pod=cluster.pod, sleep=lambda _: None)
    made = SyncTokenSource(target(service), credentials=store, rotation=rotator.AT_ONCE, **options)
    made._rotating = True  # only when it is told to
    return made


@pytest.mark.parametrize("faults", [[], [503], [409], [401], [500, 429]])
def test_in_a_kubernetes_secret(service: Installation, user: Account, cluster: Cluster, faults: list[int]) -> None:
    """Rotated through the cluster's API, whatever it answers in between; three changes, each on the version before."""
    with in_cluster(service, cluster) as source:
        assert source.token()
        waiting: list[int] = list(faults)
        answer: Callable[..., Any] = cluster.answer

        def answered(method: str, *request: Any) -> Any:
            if waiting and method == "PATCH":
                cluster.faults.append(waiting.pop(0))
            return answer(method, *request)

        cluster.answer = answered  # type: ignore[method-assign]
        assert source.rotate_secret()
        assert cluster.content()["client_secret"] != user.secret
        assert "rotation" not in cluster.content()
        assert source.token(scope="storage.read")
    versions = [json.loads(body)["metadata"]["resourceVersion"] for method, _, _, body in cluster.requests if body]
    assert len(set(versions)) == 3
    assert rotations(service, user) == 1


def test_two_replicas_and_one_kubernetes_secret(service: Installation, user: Account, cluster: Cluster) -> None:
    """One has died after it asked for the new secret: the other goes on to the same one."""
    with in_cluster(service, cluster) as dead, in_cluster(service, cluster) as other:
        assert dead.token()
        assert dead.rotation is not None
        steps = dead.rotation.rotate()
        answer: Any = None
        carrier = dead._open()
        while not isinstance(answer, RotateSecretResponse):
            answer = carrier._carried_out(steps.send(answer))
        steps.close()
        assert other.token()
        assert other.rotate_secret()
    assert rotations(service, user) == 1
    assert cluster.content()["client_secret"] == answer.client_secret
