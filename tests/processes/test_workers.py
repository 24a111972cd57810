"""Several workers behind one address: killed, replaced, stopped and left alone, while clients go on calling."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from artstore_grpc.workers.supervisor import LAST_SECONDS
from tests.processes import chain
from tests.processes.service import ANY_PORT, CALL_SECONDS, COMMAND, Client, Installation, Service, code_of, until
from tests.processes.workers import (
    CONNECTIONS,
    STOP_SECONDS,
    Load,
    callers_of,
    deaths,
    gone,
    issue_over_new_connections,
    ready,
    served,
    workers,
)
from tests.rotation.test_processes import make_due

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ISSUED = "artstore_tokens_issued_total[('mode', 'normal')]"
REPORT_SECONDS = 20.0
"""A report each second, on a busy machine."""


def test_several_are_as_one(tmp_path: Path, installation: Installation) -> None:
    """Any port is one port for all workers; each gets connections; what they count is one number in one place; the
    supervisor has not loaded gRPC; SIGTERM ends them all with 0."""
    with served(tmp_path, installation, 2) as service:
        pids = workers(service)
        assert len(pids) == 2
        assert "cygrpc" not in Path(f"/proc/{service.pid}/maps").read_text()
        who = installation.administrator
        with ExitStack() as stack:
            for _ in range(CONNECTIONS):
                client = stack.enter_context(Client(service.grpc_address, installation))
                assert client.issue(who.client_id, who.client_secret).access_token
            assert all(callers_of(pid, service.grpc_address) for pid in pids)
        for _ in range(3):
            assert httpx.get(f"{service.gateway_url}/health/ready").status_code == 200
        until(lambda: service.metrics().get(ISSUED) == CONNECTIONS, REPORT_SECONDS, "every token counted")
        assert service.metrics()["artstore_workers"] == 2
        service.terminate()
        assert service.wait(STOP_SECONDS) == 0
        assert gone(pids)
        assert [line["event"] for line in service.lines()].count("stopped") == 3


def test_the_address_is_theirs_alone(tmp_path: Path, on_sqlite: Installation) -> None:
    """Neither a service with workers nor one without can start where another one's workers listen, at any door."""
    with served(tmp_path / "first", on_sqlite, 2, ARTSTORE_HEALTH_ADDRESS=ANY_PORT) as service:
        listening = service.logged("listening")
        for door in ("grpc", "gateway", "metrics"):
            for count in ("1", "2"):
                taken = {f"ARTSTORE_{door.upper()}_ADDRESS": listening[door], "ARTSTORE_WORKERS": count}
                second = Service(tmp_path / f"{door}{count}", on_sqlite.environment | taken).spawn()
                assert second.wait(STOP_SECONDS) == 8
                assert listening[door] in second.said[-1]
        assert len(workers(service)) == 2


def test_a_killed_worker_is_replaced(tmp_path: Path, on_postgres: Installation) -> None:
    """kill -9 of workers under load: no call of clients that retry fails, the counters don't fall, what was
    acknowledged is there, and the ledger's chain holds."""
    with ExitStack() as stack:
        service = stack.enter_context(served(tmp_path, on_postgres, 2))
        client = stack.enter_context(Client(service.grpc_address, on_postgres))
        assert client.bearer
        retrying = stack.enter_context(Load(service.grpc_address, on_postgres, 4, retries=True))
        plain = stack.enter_context(Load(service.grpc_address, on_postgres, 4, retries=False))
        issued, acknowledged = 0.0, []
        for number in range(4):
            acknowledged.append(created(client, f"account {number}"))
            until(ready(service, 2), STOP_SECONDS, "both ready")
            os.kill(workers(service)[number % 2], signal.SIGKILL)
            until(lambda n=number: deaths(service) == n + 1, STOP_SECONDS, "its death noticed")  # type: ignore[misc]
            retrying.goes_on()
            seen = service.metrics()[ISSUED]
            assert seen >= issued
            issued = seen
        until(ready(service, 2), STOP_SECONDS, "both ready")
        print(f"4 kills: {retrying.succeeded} calls with retries, failed {dict(retrying.failed)}, slowest ", end="")
        print(f"{retrying.slowest:.2f} s; {plain.succeeded} without, failed {dict(plain.failed)}")
        assert not retrying.failed
        assert service.metrics()["artstore_worker_restarts_total"] == 4
        assert [line["code"] for line in service.lines() if line["event"] == "worker died"] == [-9] * 4
        request = pb.ListServiceAccountsRequest(page_size=100)
        with Client(service.grpc_address, on_postgres) as fresh:
            listed = fresh.accounts.ListServiceAccounts(request, metadata=fresh.bearer).service_accounts
        assert {account.name for account in listed} >= set(acknowledged)
    rows = chain.verified(on_postgres.environment["ARTSTORE_DATABASE_URL"])
    assert (rows["account.created"], rows["key.created"]) == (1 + 4 + 2, 2)


def created(client: Client, name: str) -> str:
    """An account, made in spite of a killed worker; its name."""
    request_id = f"00000000-0000-4000-8000-{abs(hash(name)) % 10**12:012d}"
    until(lambda: code_of(lambda: client.create(name, request_id)) is grpc.StatusCode.OK, STOP_SECONDS, "created")
    return name


def test_hangup_replaces_all(tmp_path: Path, on_sqlite: Installation) -> None:
    """SIGHUP under load: every worker is another one afterwards, there were never fewer than before, and no call of
    clients that retry fails, over lasting connections and over new ones."""
    with ExitStack() as stack:
        service = stack.enter_context(served(tmp_path, on_sqlite, 2))
        address, before = service.grpc_address, set(workers(service))
        loads = {
            (retries, anew): stack.enter_context(Load(address, on_sqlite, 3, retries=retries, anew=anew))
            for retries in (True, False)
            for anew in (True, False)
        }
        os.kill(service.pid, signal.SIGHUP)
        least = 2.0
        while not any(line["event"] == "rolling restart done" for line in service.lines()):
            least = min(least, service.metrics()["artstore_workers"])
            assert service.running
        assert least == 2
        assert len(workers(service)) == 2
        assert not before & set(workers(service))
        for load in loads.values():
            load.goes_on(20)
        for (retries, anew), load in loads.items():
            print(f"retries {retries}, new connections {anew}: {load.succeeded} calls, failed {dict(load.failed)}")
        assert not loads[True, True].failed
        assert not loads[True, False].failed
        assert service.metrics()["artstore_worker_restarts_total"] == 0


def test_a_hangup_that_can_not_succeed(tmp_path: Path, on_sqlite: Installation) -> None:
    """Where a new worker refuses to start (its key is gone), the old ones go on."""
    key = tmp_path / "key"
    key.write_text(on_sqlite.environment["ARTSTORE_KEY_ENCRYPTION_KEY"])
    from_file = {"ARTSTORE_KEY_ENCRYPTION_KEY": "", "ARTSTORE_KEY_ENCRYPTION_KEY_FILE": str(key)}
    with served(tmp_path / "service", on_sqlite, 2, **from_file) as service:
        before = workers(service)
        key.unlink()
        os.kill(service.pid, signal.SIGHUP)
        assert service.logged("rolling restart given up")["code"] == 10
        assert workers(service) == before
        issue_over_new_connections(service, on_sqlite, 4)


def test_without_their_supervisor_they_end(tmp_path: Path, on_sqlite: Installation) -> None:
    """When the supervisor is killed the workers drain and end by themselves, and the address is free again."""
    with served(tmp_path, on_sqlite, 2) as service:
        pids, address = workers(service), service.grpc_address
        service.kill()
        until(lambda: gone(pids), STOP_SECONDS, "the workers have ended")
        assert [line["event"] for line in service.lines()].count("stopped") == 2
    again = {"ARTSTORE_GRPC_ADDRESS": address, "ARTSTORE_WORKERS": "1"}
    with Service(tmp_path / "again", on_sqlite.environment | again) as second:
        assert second.grpc_address == address


def test_those_that_die_young_wait(tmp_path: Path, on_sqlite: Installation) -> None:
    """A worker that is killed again and again is restarted later and later; the other one serves."""
    with served(tmp_path, on_sqlite, 2) as service:
        for number in range(1, 5):
            until(ready(service, 2), STOP_SECONDS, "both ready")
            os.kill(max(workers(service)), signal.SIGKILL)
            until(lambda n=number: deaths(service) == n, STOP_SECONDS, "its death noticed")  # type: ignore[misc]
            issue_over_new_connections(service, on_sqlite, 2)
        waits = [line["restart_in_seconds"] for line in service.lines() if line["event"] == "worker died"]
        assert sorted(waits) == waits
        assert waits[-1] > 0


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"ARTSTORE_SINKS_FILE": "/nowhere.json"}, 10),
        ({"ARTSTORE_GRPC_ADDRESS": "0.0.0.0:0"}, 10),
        ({"ARTSTORE_WORKERS": "0"}, 10),
        ({"ARTSTORE_WORKERS": "many"}, 10),
    ],
)
def test_an_error_of_the_operator_ends_it(
    tmp_path: Path, on_sqlite: Installation, wrong: dict[str, str], code: int
) -> None:
    """Wrong settings end the service with their exit code, in one sentence, and nothing is tried again."""
    service = Service(tmp_path, on_sqlite.environment | {"ARTSTORE_WORKERS": "2"} | wrong).spawn()
    assert service.wait(STOP_SECONDS) == code
    assert len(service.said) == 1
    assert service.said[0].startswith("Error: ")


def test_the_schema_of_another_version_ends_it(tmp_path: Path, postgres_empty_url: str) -> None:
    """No tables: as without workers it ends with 7."""
    environment = {
        "ARTSTORE_WORKERS": "2",
        "ARTSTORE_DATABASE_URL": postgres_empty_url,
        "ARTSTORE_ISSUER": "http://issuer.test",
        "ARTSTORE_KEY_ENCRYPTION_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    }
    service = Service(tmp_path, environment).spawn()
    assert service.wait(STOP_SECONDS) == 7


def test_a_first_start_has_one_administrator(tmp_path: Path) -> None:
    """On the embedded default the first worker makes the installation, and its credentials are said once."""
    service = Service(tmp_path, {}, command=())
    environment = service.environment | {"ARTSTORE_DATA_DIR": str(tmp_path / "var")}
    process = subprocess.Popen(
        [*COMMAND, "serve", "--workers", "2"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=tmp_path,
        text=True,
    )
    try:
        assert process.stderr is not None
        while '"ready"' not in process.stderr.readline():
            pass
        process.terminate()
        said, log = process.communicate(timeout=STOP_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, log
    assert said.count("credentials are in") == 1
    assert len(re.findall("Get a token", said)) == 1
    assert len(list((tmp_path / "var").glob("administrator*.env"))) == 1


def test_a_stop_is_bounded(tmp_path: Path, on_sqlite: Installation) -> None:
    """On SIGTERM all workers are unready at once and still answer for the delay; calls in flight at either of them
    finish; and it ends no later than delay and grace, and the last words after them."""
    delay, grace = 5, 40
    slow = {
        "ARTSTORE_DRAIN_DELAY": str(delay),
        "ARTSTORE_DRAIN_GRACE": str(grace),
        "ARTSTORE_BCRYPT_COST": "15",  # two seconds, so that a report falls into each call
    }
    with served(tmp_path, on_sqlite, 2, **slow) as service, ExitStack() as stack:
        clients = [stack.enter_context(Client(service.grpc_address, on_sqlite)) for _ in range(8)]
        assert all(client.bearer for client in clients)
        assert all(client.serving("readiness") for client in clients)
        pool = stack.enter_context(ThreadPoolExecutor(8))
        calls = [pool.submit(code_of, lambda n=n, c=c: c.create(f"account {n}")) for n, c in enumerate(clients[:3])]  # type: ignore[misc]
        until(lambda: service.metrics().get("artstore_calls_in_flight", 0) > 0, REPORT_SECONDS, "calls in flight")
        asked = time.monotonic()
        service.terminate()
        # A door that has closed would be an error here.
        until(lambda: not any(client.serving("readiness") for client in clients), delay, "all unready")
        assert service.wait(STOP_SECONDS) == 0
        took = time.monotonic() - asked
        print(f"stopped in {took:.1f} s")
        assert [call.result() for call in calls] == [grpc.StatusCode.OK] * 3
        assert took < delay + grace + LAST_SECONDS + 5  # on a busy machine


def test_limits_are_divided(tmp_path: Path, on_sqlite: Installation) -> None:
    """Without Redis the workers together admit no more than 1.1 times an account's limit, and most of it."""
    limit = 100
    with served(tmp_path, on_sqlite, 3) as service, Client(service.grpc_address, on_sqlite) as client:
        made = client.create("limited")
        assert made.service_account.rate_limit == limit
        who, started = (made.service_account.client_id, made.client_secret), time.monotonic()
        codes = []
        for _ in range(CONNECTIONS):
            with Client(service.grpc_address, on_sqlite) as each:
                codes += [code_of(lambda c=each: c.issue(*who)) for _ in range(12)]  # type: ignore[misc]
        assert time.monotonic() - started < 60, "too slow a machine: the window has moved"
    admitted = codes.count(grpc.StatusCode.OK)
    print(f"{admitted} of a limit of {limit} admitted by 3 workers")
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert limit / 2 < admitted <= 1.1 * limit


def test_a_rotation_is_done_once(tmp_path: Path, on_postgres: Installation) -> None:
    """Scheduled rotations fall due while workers are killed: each secret is rotated once, and delivered."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    sinks = tmp_path / "sinks.json"
    sinks.write_text(json.dumps({"sinks": {"folder": {"kind": "files", "folder": str(folder)}}}))
    with served(tmp_path / "service", on_postgres, 2, ARTSTORE_SINKS_FILE=str(sinks)) as service, ExitStack() as stack:
        client = stack.enter_context(Client(service.grpc_address, on_postgres))
        assert client.bearer
        accounts = [managed(client, f"managed {number}") for number in range(6)]
        for account in accounts:
            make_due(on_postgres, account)
        url, kills = on_postgres.environment["ARTSTORE_DATABASE_URL"], 0
        deadline = time.monotonic() + 200
        while chain.verified(url)["secret.delivered"] < len(accounts):
            assert time.monotonic() < deadline
            if kills < 6 and len(workers(service)) == 2:
                os.kill(workers(service)[kills % 2], signal.SIGKILL)
                kills += 1
            time.sleep(0.5)
    kinds = chain.verified(url)
    print(f"{kills} kills, {kinds['secret.rotated']} rotations of {len(accounts)}")
    assert (kinds["secret.rotated"], kinds["secret.delivered"], kinds["key.created"]) == (6, 6, 2)


def managed(client: Client, name: str) -> str:
    policy = pb.RotationPolicy(
        mode=pb.ROTATION_MODE_MANAGED, schedule="0 3 * * 1", overlap=Duration(seconds=3600), sink="folder"
    )
    account = pb.ServiceAccount(name=name, role=pb.ROLE_USER, rotation_policy=policy)
    request = pb.CreateServiceAccountRequest(service_account=account)
    made = client.accounts.CreateServiceAccount(request, metadata=client.bearer, timeout=CALL_SECONDS)
    return str(made.service_account.id)
