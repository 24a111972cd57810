"""Several processes on one database: they start together, write together, learn from each other, restart cheaply."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import grpc
import psutil
import pytest
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb

from artstore_grpc.installation import Administrator
from artstore_grpc.model import AccountQuery
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import new_key
from tests.processes import chain
from tests.processes.service import (
    COMMAND,
    ISSUER,
    START_SECONDS,
    Client,
    Installation,
    Service,
    code_of,
    replicas,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLIENTS = 1000
WRITERS = 4
WRITES = 25


def without_tag(database_url: str, called: str) -> int:
    """How many secrets, of accounts whose name begins so, have no tag in the database."""

    async def count() -> int:
        store = SqlStore(database_url)
        try:
            found = await store.accounts(AccountQuery(2 * CLIENTS), datetime.now(UTC))
            ours = [account for account in found if account.name.startswith(called)]
            assert len(ours) == CLIENTS
            return sum(secret.tag is None for account in ours for secret in account.secrets)
        finally:
            await store.close()

    return asyncio.run(count())


def system_accounts(database_url: str) -> int:
    async def count() -> int:
        store = SqlStore(database_url)
        try:
            return sum(each.is_system for each in await store.accounts(AccountQuery(1000), datetime.now(UTC)))
        finally:
            await store.close()

    return asyncio.run(count())


def test_a_restart_of_every_replica_runs_no_bcrypt(tmp_path: Path, on_postgres: Installation) -> None:
    """After both replicas restart, 1,000 clients get their tokens and not one hash is computed, but for tags that a
    busy database had not taken in time: their secrets are proved once more."""
    with replicas(tmp_path, on_postgres.environment, 2) as services:
        made = created(services[0], on_postgres, CLIENTS)
        first = first_tokens(services, on_postgres, made)
        assert computed(services) >= CLIENTS
        for service in services:
            service.terminate()
        assert [service.wait() for service in services] == [0, 0]
        lost = without_tag(on_postgres.environment["ARTSTORE_DATABASE_URL"], "client ")
        assert lost <= CLIENTS / 100
        for service in services:
            service.spawn()
        for service in services:
            service.logged("ready")
        again = first_tokens(services, on_postgres, made)
        assert computed(services) == lost
    print(f"{CLIENTS} first tokens with bcrypt (cost 4) {first:.2f} s, after the restart {again:.2f} s, {lost} hashes")


def created(service: Service, installation: Installation, count: int) -> list[tuple[str, str]]:
    """So many accounts, as credentials."""
    with Client(service.grpc_address, installation) as client, ThreadPoolExecutor(8) as pool:
        assert client.bearer
        made = list(pool.map(lambda number: client.create(f"client {number}"), range(count)))
    return [(each.service_account.client_id, each.client_secret) for each in made]


def first_tokens(services: list[Service], installation: Installation, accounts: list[tuple[str, str]]) -> float:
    """Gets a token for each account, half of them from each replica; how many seconds it took."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(service.grpc_address, installation)) for service in services]
        pool = stack.enter_context(ThreadPoolExecutor(16))
        started = time.monotonic()
        work = [pool.submit(clients[number % 2].issue, *who) for number, who in enumerate(accounts)]
        assert all(each.result().access_token for each in work)
        return time.monotonic() - started


def computed(services: list[Service]) -> float:
    return sum(service.metrics()["artstore_bcrypt_duration_seconds_count"] for service in services)


def test_replicas_that_start_together_have_one_key(tmp_path: Path, postgres_url: str) -> None:
    """On a fresh PostgreSQL: of two bootstraps at once one makes the administrator, the other refuses with its own
    exit code; two replicas at once end with one signing key, and each takes the other's tokens."""
    environment = {
        "ARTSTORE_DATABASE_URL": postgres_url,
        "ARTSTORE_KEY_ENCRYPTION_KEY": new_key(),
        "ARTSTORE_ISSUER": ISSUER,
    }
    made = [each for each in bootstrapped_together(environment, 2) if each]
    assert len(made) == 1
    assert system_accounts(postgres_url) == 1
    with replicas(tmp_path, environment, 2) as services:
        check_one_key(services, Installation(environment, made[0]))
    assert chain.verified(postgres_url) == {"account.created": 1, "key.created": 2, "ledger_key.created": 1}


def bootstrapped_together(environment: dict[str, str], count: int) -> list[Administrator | None]:
    """What so many `bootstrap --json` at once print; None for those that refuse as they must."""
    clean = Service(Path(), environment).environment
    running = [
        subprocess.Popen([*COMMAND, "bootstrap", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean)
        for _ in range(count)
    ]
    answers: list[Administrator | None] = []
    for process in running:
        out, err = process.communicate(timeout=START_SECONDS)
        assert process.returncode in (0, 3), err.decode()
        answers.append(Administrator(**json.loads(out)) if process.returncode == 0 else None)
    return answers


def check_one_key(services: list[Service], installation: Installation) -> None:
    with ExitStack() as stack:
        one, other = (stack.enter_context(Client(each.grpc_address, installation)) for each in services)
        until(lambda: len(one.key_ids()) == 2, 10.0, "the first key, and the one that is to follow it")
        until(lambda: one.key_ids() == other.key_ids(), 2.0, "the same keys on both")
        assert other.introspect(one.bearer[0][1].removeprefix("Bearer ")).active


def test_embedded_starts_together_have_one_administrator(tmp_path: Path) -> None:
    """Two first starts at once in one folder end with one key-encryption key, one signing key and one administrator,
    whose credentials were written down once."""
    folder = tmp_path / "var"
    with replicas(tmp_path, {"ARTSTORE_DATA_DIR": str(folder), "ARTSTORE_ISSUER": ISSUER}, 2) as services:
        until((folder / "administrator.env").exists, 10.0, "the credentials, which are written once it is ready")
        lines = (folder / "administrator.env").read_text().splitlines()
        values = dict(line.removeprefix("export ").split("=", 1) for line in lines if "=" in line)
        administrator = Administrator(*(values[f"ARTSTORE_CLIENT_{name}"].strip("'\"") for name in ("ID", "SECRET")))
        check_one_key(services, Installation({}, administrator))
    assert system_accounts(f"sqlite:///{folder / 'identity.db'}") == 1
    assert chain.verified(f"sqlite:///{folder / 'identity.db'}") == {
        "account.created": 1,
        "key.created": 2,
        "ledger_key.created": 1,
    }


def test_four_processes_on_one_file_lose_nothing(tmp_path: Path, on_sqlite: Installation) -> None:
    """Four processes that write to one SQLite file at once: every write succeeds, is there, and the chain holds."""
    with replicas(tmp_path, on_sqlite.environment, WRITERS) as services, ExitStack() as stack:
        clients = [stack.enter_context(Client(each.grpc_address, on_sqlite)) for each in services]
        pool = stack.enter_context(ThreadPoolExecutor(2 * WRITERS))
        assert all(client.bearer for client in clients)
        started = time.monotonic()
        names = [(client, f"account {number} {at}") for number in range(WRITES) for at, client in enumerate(clients)]
        made = list(pool.map(lambda each: each[0].create(each[1]).service_account.id, names))
        print(f"{len(made)} creates by {WRITERS} processes on one file: {time.monotonic() - started:.2f} s")
        asked = accounts_pb.ListServiceAccountsRequest(page_size=1000)
        listed = clients[0].accounts.ListServiceAccounts(asked, metadata=clients[0].bearer).service_accounts
        assert {account.id for account in listed} >= set(made)
    rows = chain.verified(on_sqlite.environment["ARTSTORE_DATABASE_URL"])
    assert rows == {"account.created": WRITERS * WRITES + 1, "key.created": 2, "ledger_key.created": 1}


def test_a_suspension_elsewhere_is_seen_within_a_second(tmp_path: Path, installation: Installation) -> None:
    """An account that one replica suspends is refused by the other, which had it in memory, within a second."""
    with replicas(tmp_path, installation.environment, 2) as services, ExitStack() as stack:
        here, there = (stack.enter_context(Client(each.grpc_address, installation)) for each in services)
        made = here.create("soon suspended")
        who = (made.service_account.client_id, made.client_secret)
        token = here.issue(*who).access_token
        assert there.issue(*who).access_token
        assert there.introspect(token).active
        here.suspend(made.service_account.id)
        suspended = time.monotonic()
        assert code_of(lambda: here.issue(*who)) is grpc.StatusCode.UNAUTHENTICATED
        until(lambda: code_of(lambda: there.issue(*who)) is grpc.StatusCode.UNAUTHENTICATED, 1.0, "refused there")
        print(f"seen after {time.monotonic() - suspended:.3f} s")
        assert not there.introspect(token).active


def test_metrics_are_well_formed_under_load(tmp_path: Path, on_postgres: Installation) -> None:
    """Every read of /metrics amid calls parses, counters never fall, and they count every call."""
    spawned = time.monotonic()
    with Service(tmp_path / "service", on_postgres.environment) as service:
        who = on_postgres.administrator
        with Client(service.grpc_address, on_postgres) as client, ThreadPoolExecutor(4) as pool:
            assert client.issue(who.client_id, who.client_secret).access_token
            print(f"first token {time.monotonic() - spawned:.2f} s after the start")
            print(f"{psutil.Process(service.pid).memory_info().rss / 2**20:.0f} MB resident, idle")
            work = [pool.submit(client.issue, who.client_id, who.client_secret) for _ in range(500)]
            issued, reads = 0.0, 0
            while not all(each.done() for each in work):
                seen = service.metrics()["artstore_tokens_issued_total[('mode', 'normal')]"]
                assert seen >= issued
                issued, reads = seen, reads + 1
            assert all(each.result() for each in work)
            assert reads
            assert service.metrics()["artstore_tokens_issued_total[('mode', 'normal')]"] == 501
