"""The drill of a backup: a service under load is copied, destroyed, and restored into an empty place.

What is measured is printed; docs/backup.md has it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from artstore.identity import Client as LibraryClient
from artstore.identity import TokenRevoked, TokenVerifier, TrustFeed, TrustStale
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from artstore_grpc import app
from artstore_grpc.store.schema import upgrade
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import new_key
from tests.processes import chain
from tests.processes.service import (
    COMMAND,
    ISSUER,
    Client,
    Installation,
    Service,
    code_of,
    until,
)
from tests.processes.test_refusals import refused
from tests.servers import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOADERS = 4
RATE = 1_000_000
CHECKPOINT_SECONDS = 240.0


@dataclass
class Place:
    """Where an installation is: its settings, and how it is copied, destroyed, and restored elsewhere."""

    environment: dict[str, str]
    copy: Callable[[], None]
    destroy: Callable[[], None]
    restore: Callable[[], dict[str, str]]
    """The settings of where it was restored to."""
    without_key: Callable[[dict[str, str]], dict[str, str]]
    """The same settings, where the key-encryption key was lost."""


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """On the embedded default, and on a PostgreSQL of its own that is restored into another one."""
    if request.param == "sqlite":
        yield on_sqlite(tmp_path)
        return
    with ExitStack() as stack:
        yield on_postgresql(stack, tmp_path)


def command(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    clean = Service(Path(), environment).environment
    return subprocess.run([*COMMAND, *words], env=clean, cwd="/", capture_output=True, text=True, check=False)


def on_sqlite(folder: Path) -> Place:
    data, elsewhere, saved = folder / "data", folder / "elsewhere", folder / "backups"
    saved.mkdir()
    environment = {"ARTSTORE_DATA_DIR": str(data), "ARTSTORE_ISSUER": ISSUER}

    def copy() -> None:
        ended = command(environment, "db", "backup", str(saved / "identity.db"))
        assert not ended.returncode, ended.stderr
        (folder / "key").write_bytes((data / "key-encryption.key").read_bytes())  # apart from the copy

    def restore() -> dict[str, str]:
        elsewhere.mkdir(mode=0o700)
        shutil.copy(saved / "identity.db", elsewhere / "identity.db")
        shutil.copy(folder / "key", elsewhere / "key-encryption.key")
        return environment | {"ARTSTORE_DATA_DIR": str(elsewhere)}

    def without_key(restored: dict[str, str]) -> dict[str, str]:
        lost = folder / "lost"
        lost.mkdir(mode=0o700)
        shutil.copy(saved / "identity.db", lost / "identity.db")
        return restored | {"ARTSTORE_DATA_DIR": str(lost)}

    return Place(environment, copy, lambda: shutil.rmtree(data), restore, without_key)


def on_postgresql(stack: ExitStack, folder: Path) -> Place:
    server = stack.enter_context(Postgres())
    asyncio.run(execute(server.url(), "CREATE DATABASE artstore"))
    asyncio.run(upgrade(server.url("artstore")))
    key, dump = new_key(), folder / "artstore.dump"
    environment = {
        "ARTSTORE_DATABASE_URL": server.url("artstore"),
        "ARTSTORE_KEY_ENCRYPTION_KEY": key,
        "ARTSTORE_ISSUER": ISSUER,
    }

    def tool(name: str, *words: str) -> None:
        ended = subprocess.run([server.binaries / name, *words], capture_output=True, text=True, check=False)
        assert not ended.returncode, ended.stderr

    def copy() -> None:
        tool("pg_dump", "--format=custom", "--no-owner", "--no-privileges", f"--file={dump}", server.url("artstore"))

    def restore() -> dict[str, str]:
        other = stack.enter_context(Postgres(fsync=True))
        asyncio.run(execute(other.url(), "CREATE DATABASE artstore"))
        options = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
        tool("pg_restore", *options, f"--dbname={other.url('artstore')}", str(dump))
        return environment | {"ARTSTORE_DATABASE_URL": other.url("artstore")}

    def destroy() -> None:
        server.kill()
        shutil.rmtree(server.data)

    def without_key(restored: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in restored.items() if name != "ARTSTORE_KEY_ENCRYPTION_KEY"}

    return Place(environment, copy, destroy, restore, without_key)


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


@dataclass
class Load:
    """Callers that issue and revoke until they are told to stop; each revocation is a row of the ledger. What was
    answered, and when."""

    address: str
    installation: Installation
    accounts: list[accounts_pb.CreateServiceAccountResponse]
    stop: threading.Event = field(default_factory=threading.Event)
    revoked: list[tuple[float, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unavailable: int = 0

    def run(self, number: int) -> None:
        made = self.accounts[number % len(self.accounts)]
        who = made.service_account.client_id, made.client_secret
        with Client(self.address, self.installation) as client:
            while not self.stop.is_set():
                try:
                    token = client.issue(*who).access_token
                    asked = tokens_pb.RevokeTokenRequest(token=token, client_id=who[0], client_secret=who[1])
                    client.tokens.RevokeToken(asked, timeout=60)
                except grpc.RpcError as error:
                    refusal: Any = error
                    if refusal.code() is grpc.StatusCode.UNAVAILABLE:  # a machine with other work; clients try again
                        self.unavailable += 1
                        time.sleep(0.2)
                    else:
                        self.failures.append(str(error))
                else:
                    self.revoked.append((time.monotonic(), token))


@contextmanager
def loading(load: Load) -> Iterator[Load]:
    with ThreadPoolExecutor(LOADERS) as pool:
        work = [pool.submit(load.run, number) for number in range(LOADERS)]
        try:
            yield load
        finally:
            load.stop.set()
    for each in work:
        each.result()


def account(client: Client, name: str) -> accounts_pb.CreateServiceAccountResponse:
    message = accounts_pb.ServiceAccount(
        name=name, role=accounts_pb.ROLE_USER, rate_limit=RATE, served_audiences=["artstore"]
    )
    request = accounts_pb.CreateServiceAccountRequest(service_account=message)
    made: accounts_pb.CreateServiceAccountResponse = client.accounts.CreateServiceAccount(
        request, metadata=client.bearer, timeout=60
    )
    return made


class Follower:
    """A service that verifies by the feed, throughout: a thread with a loop."""

    def __init__(self, address: str, made: accounts_pb.CreateServiceAccountResponse) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._client = LibraryClient(
            address, client_id=made.service_account.client_id, client_secret=made.client_secret
        )
        self.feed: TrustFeed
        self._verifier: TokenVerifier

    def __enter__(self) -> Follower:
        self._thread.start()
        self.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.feed.__aexit__())
        self.run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        await self._client.__aenter__()
        self.feed = TrustFeed(self._client)
        await self.feed.__aenter__()
        await self.feed.confirmed()
        self._verifier = TokenVerifier(ISSUER, audience="artstore", trust=self.feed, on_stale="refuse")

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def takes(self, token: str) -> bool:
        """Whether the verifier accepts it, once its feed is there."""
        until(lambda: not self.feed.stale, 60.0, "the feed is there")
        try:
            self.run(self._verifier.verify(token))
        except TokenRevoked:
            return False
        except TrustStale:  # only just
            return self.takes(token)
        return True

    @property
    def head(self) -> tuple[int, str]:
        """The ledger's, as the feed has published it."""
        return self.feed.state.sequence, self.feed.state.hash.hex()


def checkpoints(url: str) -> int:
    async def count() -> int:
        store = SqlStore(url)
        try:
            return len(await store.checkpoints(0, 1000))
        finally:
            await store.close()

    return asyncio.run(count())


def url_of(environment: dict[str, str]) -> str:
    return environment.get("ARTSTORE_DATABASE_URL") or f"sqlite:///{environment['ARTSTORE_DATA_DIR']}/identity.db"


def test_a_restored_service_goes_on(tmp_path: Path, place: Place) -> None:
    """Under load it is copied, then destroyed with all its data, and restored from the copy and the key into an empty
    place: the same credentials get tokens without a hash, tokens of before are good, the ledger verifies with its
    checkpoints, administration works, verifiers find their way. What came after the copy is undone, is found to be, and
    is done again. Without its key, or with another, nothing starts."""
    bootstrapped = command(place.environment, "bootstrap", "--json")
    assert not bootstrapped.returncode, bootstrapped.stderr
    administrator = app.Administrator(**json.loads(bootstrapped.stdout))
    installation = Installation(place.environment, administrator)
    first = Service(tmp_path / "service", place.environment)
    with ExitStack() as stack:
        stack.enter_context(first)
        address = first.grpc_address
        with Client(address, installation) as client:
            accounts = [account(client, f"account {number}") for number in range(LOADERS)]
            kept = client.issue(accounts[0].service_account.client_id, accounts[0].client_secret).access_token
        follower = stack.enter_context(Follower(address, accounts[1]))
        load = Load(address, installation, accounts)
        with loading(load):
            until(
                lambda: any(line["event"] == "ledger checkpoint" for line in first.lines()), CHECKPOINT_SECONDS, "one"
            )
            began = time.monotonic()
            place.copy()
            copied = time.monotonic() - began
            before = [token for at, token in load.revoked if at < began]
            until(lambda: load.revoked[-1][0] > began + copied, 30.0, "the load has gone on")
        assert load.failures == []
        with Client(address, installation) as client:  # after the copy
            late = account(client, "late")
            undone = client.issue(accounts[2].service_account.client_id, accounts[2].client_secret).access_token
            revoke(client, undone)
        until(lambda: not follower.takes(undone), 10.0, "the verifier knows")
        head = follower.head
        first.kill()
        place.destroy()

        began = time.monotonic()
        restored = place.restore() | {"ARTSTORE_GRPC_ADDRESS": address}
        back = time.monotonic() - began
        second = stack.enter_context(Service(tmp_path / "restored", restored))
        client = stack.enter_context(Client(second.grpc_address, Installation(restored, administrator)))
        for made in accounts:
            assert client.issue(made.service_account.client_id, made.client_secret).access_token
        seconds = time.monotonic() - began
        print(
            f"copied in {copied:.2f} s under load, {len(before)} revocations before, {load.unavailable} had to wait; "
            f"the data was back after {back:.2f} s, {LOADERS} tokens were issued after {seconds:.2f} s"
        )
        assert client.introspect(kept).active
        assert not any(client.introspect(token).active for token in before[-100:])
        assert client.bearer
        assert second.metrics()["artstore_bcrypt_duration_seconds_count"] == 0
        assert account(client, "made afterwards").client_secret

        # What came after the copy is not there: accounts, revocations, rows.
        who = late.service_account.client_id, late.client_secret
        assert code_of(lambda: client.issue(*who)) is grpc.StatusCode.UNAUTHENTICATED
        assert client.introspect(undone).active
        until(lambda: follower.takes(undone), 30.0, "the verifier has begun anew, with what is so now")
        assert follower.takes(kept)
        revoke(client, undone)
        until(lambda: not follower.takes(undone), 10.0, "revoked again, it is refused again")

        account_of = {
            "ARTSTORE_CLIENT_ID": administrator.client_id,
            "ARTSTORE_CLIENT_SECRET": administrator.client_secret,
            "ARTSTORE_TARGET": second.grpc_address,
        }
        verified = command(account_of, "audit", "verify")
        assert not verified.returncode, verified.stderr
        cut = command(account_of, "audit", "verify", "--head", f"{head[0]}:{head[1]}")
        assert cut.returncode == 11, cut.stdout
        second.terminate()
        assert second.wait() == 0
    assert chain.verified(url_of(restored))["checkpoint.signed"]
    assert checkpoints(url_of(restored)) >= 1
    check_keys(tmp_path, place, restored)


def check_keys(folder: Path, place: Place, restored: dict[str, str]) -> None:
    """Without the key, and with another one: one sentence each."""
    code, said = refused(folder / "without", place.without_key(restored))
    assert code == 10
    assert "key-encryption key" in said or "ARTSTORE_KEY_ENCRYPTION_KEY" in said
    if "ARTSTORE_DATA_DIR" in restored:
        path = Path(restored["ARTSTORE_DATA_DIR"]) / "key-encryption.key"
        path.write_text(new_key())
        code, said = refused(folder / "other", restored)
    else:
        code, said = refused(folder / "other", restored | {"ARTSTORE_KEY_ENCRYPTION_KEY": new_key()})
    assert code == 10
    assert "isn't this database's" in said


def revoke(client: Client, token: str) -> None:
    who = client.installation.administrator
    request = tokens_pb.RevokeTokenRequest(token=token, client_id=who.client_id, client_secret=who.client_secret)
    client.tokens.RevokeToken(request, timeout=60)
