"""Processes that end at a bad moment: killed amid the rotation of a signing key, and stopped with a trust feed open."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from artstore.identity.v1 import key_service_pb2 as keys_pb
from artstore.identity.v1 import key_service_pb2_grpc
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from artstore_grpc.signing_keys import LEASE_LIFETIME
from tests.processes import chain
from tests.processes.service import CALL_SECONDS, Client, Installation, Service, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%ledger_head%'"
)
GRACE_SECONDS = 60
SLOW_COST = "15"
"""Two seconds of bcrypt: a call that is surely in flight."""


class HeldLedger:
    """The ledger's head, locked: whoever changes anything gets as far as its row in the ledger, and waits there."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._release = threading.Event()
        self._held = threading.Event()
        self.waiting = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._hold()))

    def __enter__(self) -> HeldLedger:
        self._thread.start()
        assert self._held.wait(CALL_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        self._release.set()
        self._thread.join(CALL_SECONDS)

    async def _hold(self) -> None:
        holder, watcher = await asyncpg.connect(self._url), await asyncpg.connect(self._url)
        async with holder.transaction():
            await holder.execute("SELECT * FROM ledger_head FOR UPDATE")
            self._held.set()
            while not self._release.is_set():
                self.waiting = await watcher.fetchval(WAITING)
                await asyncio.sleep(0.01)
        await holder.close()
        await watcher.close()


def url_of(installation: Installation) -> str:
    return installation.environment["ARTSTORE_DATABASE_URL"]


def states(installation: Installation) -> dict[str, str]:
    """The state of every key by its id, as committed."""

    async def read() -> dict[str, str]:
        connection = await asyncpg.connect(url_of(installation))
        found = await connection.fetch("SELECT kid, state FROM signing_keys")
        await connection.close()
        return {row["kid"]: row["state"] for row in found}

    return asyncio.run(read())


def started(stack: ExitStack, folder: Path, installation: Installation, **settings: str) -> tuple[Service, Client]:
    service = stack.enter_context(Service(folder, installation.environment | settings))
    return service, stack.enter_context(Client(service.grpc_address, installation))


def rotate(client: Client) -> Any:
    stub = key_service_pb2_grpc.KeyServiceStub(client.channel)
    return stub.RotateSigningKey(keys_pb.RotateSigningKeyRequest(), metadata=client.bearer, timeout=CALL_SECONDS)


def test_killed_amid_a_rotation_that_was_asked_for(tmp_path: Path, on_postgres: Installation) -> None:
    """The caller is told UNAVAILABLE, and nothing of the rotation has happened; another replica carries it out when it
    is asked; what the killed one has signed is good, and so is the ledger."""
    with ExitStack() as stack:
        first, client = started(stack, tmp_path / "first", on_postgres, ARTSTORE_JWKS_MAX_AGE="1")
        second, other = started(stack, tmp_path / "second", on_postgres, ARTSTORE_JWKS_MAX_AGE="1")
        made = client.create("account")
        known = (made.service_account.client_id, made.client_secret)
        token = client.issue(*known).access_token
        assert other.bearer
        assert client.bearer
        until(lambda: "prepared" in states(on_postgres).values(), 60, "a key that can sign next")
        time.sleep(1.2)  # verifiers have it by then: it may sign at once
        before = states(on_postgres)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        with HeldLedger(url_of(on_postgres)) as ledger:
            asked = pool.submit(rotate, client)
            until(lambda: ledger.waiting, 30, "the rotation is before its commit")
            first.kill()
        failure = asked.exception(CALL_SECONDS)
        assert isinstance(failure, grpc.RpcError)
        assert failure.code() is grpc.StatusCode.UNAVAILABLE
        assert states(on_postgres) == before
        rotated = rotate(other).signing_key
        assert states(on_postgres)[rotated.kid] == "active"
        assert other.introspect(token).active
        assert other.introspect(other.issue(*known).access_token).active
        assert second.running
    assert list(states(on_postgres).values()).count("active") == 1
    assert chain.verified(url_of(on_postgres))["key.activated"] == 1


def test_killed_amid_a_rotation_that_was_due(tmp_path: Path, on_postgres: Installation) -> None:
    """The replica that rotates by itself dies while it does: the lease runs out, and the other one goes on."""
    settings = {"ARTSTORE_JWKS_MAX_AGE": "1", "ARTSTORE_KEY_ROTATION_INTERVAL": "4"}
    with ExitStack() as stack:
        first, client = started(stack, tmp_path / "first", on_postgres, **settings)
        made = client.create("account")
        known = (made.service_account.client_id, made.client_secret)
        until(lambda: "retired" in states(on_postgres).values(), 60, "the first replica rotates")
        _, other = started(stack, tmp_path / "second", on_postgres, **settings)
        assert other.bearer
        token = client.issue(*known).access_token
        with HeldLedger(url_of(on_postgres)) as ledger:
            until(lambda: ledger.waiting, 30, "a rotation is before its commit")
            first.kill()
        (before,) = [kid for kid, state in states(on_postgres).items() if state == "active"]
        killed = time.monotonic()
        bound = LEASE_LIFETIME.total_seconds() + 15
        until(lambda: states(on_postgres).get(before) != "active", bound, "the other one rotates")
        print(f"rotated {time.monotonic() - killed:.1f} s after the kill")
        assert other.introspect(token).active
        assert other.introspect(other.issue(*known).access_token).active
    assert list(states(on_postgres).values()).count("active") == 1
    chain.verified(url_of(on_postgres))


@contextmanager
def followed(client: Client) -> Iterator[tuple[list[Any], Future[grpc.StatusCode | None]]]:
    """An open WatchTrust: what it has told, and how it ends."""
    who = client.installation.administrator
    token = client.issue(who.client_id, who.client_secret).access_token
    told: list[Any] = []
    metadata = (("authorization", f"Bearer {token}"),)
    stream = client.tokens.WatchTrust(tokens_pb.WatchTrustRequest(), metadata=metadata)

    def read() -> grpc.StatusCode | None:
        try:
            told.extend(stream)
        except grpc.RpcError as error:
            return error.code()
        return None

    with ThreadPoolExecutor(1) as pool:
        try:
            ending = pool.submit(read)
            until(lambda: told, 30, "the snapshot")
            yield told, ending
        finally:
            stream.cancel()


def test_a_stop_with_a_trust_feed_open(tmp_path: Path, on_postgres: Installation) -> None:
    """SIGTERM in mid-call, with a feed open: the call is answered, the feed ends in words that say where to go on, the
    process exits with 0 long before its grace; another replica tells what has happened since."""
    settings = {"ARTSTORE_BCRYPT_COST": SLOW_COST, "ARTSTORE_DRAIN_GRACE": str(GRACE_SECONDS)}
    with ExitStack() as stack:
        service, client = started(stack, tmp_path / "first", on_postgres, **settings)
        _, other = started(stack, tmp_path / "second", on_postgres)
        assert client.bearer
        told, ending = stack.enter_context(followed(client))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        call = pool.submit(client.create, "in flight")
        until(lambda: service.metrics()["artstore_bcrypt_queue_depth"] == 1, 30, "a call in flight")
        service.terminate()
        stopping = time.monotonic()
        made = call.result(GRACE_SECONDS).service_account
        assert service.wait(GRACE_SECONDS) == 0
        seconds = time.monotonic() - stopping
        assert ending.result(5) in (None, grpc.StatusCode.UNAVAILABLE)
        assert seconds < GRACE_SECONDS / 2, "the feed held the stop up"
        assert other.issue(made.client_id, call.result().client_secret).access_token
        with followed(other) as (after, _):
            sequences = [message.sequence for message in told if message.sequence]
            until(lambda: any(message.sequence >= max(sequences) for message in after), 30, "no less than was told")
    print(f"ended after {seconds:.2f} s")
