"""The disk is full under the embedded database, or under the log."""

from __future__ import annotations

import resource
from pathlib import Path

import grpc
import psutil
import pytest

from tests.faults.clients import witnessed
from tests.processes.balancer import free_ports
from tests.processes.service import Client, Installation, Service, code_of, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

START_SECONDS = 60.0
LOG_ROOM_BYTES = 300_000
"""What the log file must stay below: the limit is on every file of the process."""


def test_a_full_disk(tmp_path: Path, on_sqlite: Installation) -> None:
    """Where SQLite's log can't grow (the kernel refuses the write, by RLIMIT_FSIZE), a write is UNAVAILABLE and leaves
    nothing behind; tokens go on, cold accounts' too; with room again it heals, and nothing acknowledged is lost."""
    with witnessed(tmp_path, on_sqlite) as witness:
        log = Path(on_sqlite.environment["ARTSTORE_DATABASE_URL"].removeprefix("sqlite:///") + "-wal")
        while log.stat().st_size < LOG_ROOM_BYTES:
            witness.create()
        process = psutil.Process(witness.service.pid)
        soft, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        process.rlimit(psutil.RLIMIT_FSIZE, (log.stat().st_size, hard))
        seen = [witness.refused() for _ in range(3)]
        cold = list(witness.acknowledged.items())[-1]
        assert witness.client.issue(*witness.warm()).access_token
        assert witness.client.issue(*cold).access_token
        process.rlimit(psutil.RLIMIT_FSIZE, (soft, hard))
        healed = witness.heals()
    assert soft == resource.RLIM_INFINITY, "the limit of the test's own machine is in the way"
    assert {(code, reason) for code, reason, _ in seen} == {(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")}
    print(f"refused in {max(seconds for _, _, seconds in seen):.3f} s, healed {healed:.2f} s")


def test_a_full_disk_under_the_log(tmp_path: Path, on_sqlite: Installation) -> None:
    """Nothing that the service says can be written, from its start on: it issues tokens, refuses, and drains."""
    (port,) = free_ports(1)
    service = Service(tmp_path, on_sqlite.environment | {"ARTSTORE_GRPC_ADDRESS": f"127.0.0.1:{port}"})
    service.log_path.symlink_to("/dev/full")
    who = on_sqlite.administrator
    try:
        service.spawn()
        with Client(f"127.0.0.1:{port}", on_sqlite) as client:

            def issued() -> bool:
                return code_of(lambda: client.issue(who.client_id, who.client_secret)) is grpc.StatusCode.OK

            until(issued, START_SECONDS, "a token")
            assert code_of(lambda: client.issue(who.client_id, "wrong")) is grpc.StatusCode.UNAUTHENTICATED
            service.terminate()
            assert service.wait() == 0
    finally:
        service.kill()
