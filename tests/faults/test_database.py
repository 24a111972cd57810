"""PostgreSQL answers, but not as it should: slow, full, read-only. Killed and restarted: tests/processes."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest

from tests.faults.clients import witnessed
from tests.faults.conftest import DATABASE, Sql
from tests.faults.proxy import Proxy
from tests.processes.service import Installation, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
REASON = "DATABASE_UNAVAILABLE"
NOTICED_SECONDS = 30.0
STALLED_SECONDS = 60.0
"""Longer than any of the service's own bounds."""
AT_ONCE_SECONDS = 0.5
"""Less than any time that a database is given."""
END = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{DATABASE}'"


def test_a_database_that_stalls(tmp_path: Path, installation: Installation, proxy: Proxy) -> None:
    """What the database doesn't answer in time is UNAVAILABLE, soon and then at once; a warm account goes on getting
    tokens all the while; it heals by itself, and nothing acknowledged is lost."""
    with witnessed(tmp_path, installation) as witness:
        proxy.delay_seconds = STALLED_SECONDS
        first = witness.refused()
        until(lambda: witness.client.issue(*witness.warm()).expires_in <= 300, NOTICED_SECONDS, "short tokens")
        later = [witness.refused() for _ in range(3)]
        started = time.monotonic()
        assert witness.client.issue(*witness.warm()).access_token
        warm = time.monotonic() - started
        proxy.delay_seconds = 0.0
        healed = witness.heals()
    assert {(code, reason) for code, reason, _ in (first, *later)} == {(UNAVAILABLE, REASON)}
    assert min(seconds for _, _, seconds in later) < AT_ONCE_SECONDS, "known to be down, it should not be waited for"
    print(f"first refusal {first[2]:.2f} s, then {later[-1][2]:.3f} s, warm {warm:.3f} s, healed {healed:.2f} s")


def test_a_database_that_is_slow(tmp_path: Path, installation: Installation, proxy: Proxy) -> None:
    """A database that takes 100 ms more for everything is no outage: writes are slow and succeed, warm tokens are as
    they were."""
    with witnessed(tmp_path, installation) as witness:
        proxy.delay_seconds = 0.1
        for _ in range(3):
            witness.create()
        assert witness.client.issue(*witness.warm()).expires_in == 1800
        proxy.delay_seconds = 0.0
        witness.heals()
        assert not any(line["event"] == "database" and not line["up"] for line in witness.service.lines())


def test_a_database_without_connections(tmp_path: Path, installation: Installation, sql: Sql) -> None:
    """Where the database takes no connection more, what needs one is UNAVAILABLE and warm accounts get tokens; once it
    takes them again all is as before."""
    with witnessed(tmp_path, installation) as witness:
        sql(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT 0", END)
        seen = [witness.refused() for _ in range(3)]
        until(lambda: witness.client.issue(*witness.warm()).expires_in <= 300, NOTICED_SECONDS, "short tokens")
        sql(f"ALTER DATABASE {DATABASE} CONNECTION LIMIT -1")
        healed = witness.heals()
    assert {(code, reason) for code, reason, _ in seen} == {(UNAVAILABLE, REASON)}
    print(f"refused in {max(seconds for _, _, seconds in seen):.3f} s, healed {healed:.2f} s")


def test_a_database_that_is_read_only(tmp_path: Path, installation: Installation, sql: Sql) -> None:
    """Where the database only reads, as a standby does: writes are UNAVAILABLE, all tokens go on at their full
    lifetime, cold accounts' too; once it writes again all is as before, on the same connections."""
    with witnessed(tmp_path, installation) as witness:
        witness.create()
        sql("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        until(lambda: not witness.creates(), NOTICED_SECONDS, "read-only")
        seen = [witness.refused() for _ in range(3)]
        for client_id, secret in witness.acknowledged.items():
            assert witness.client.issue(client_id, secret).expires_in == 1800
        sql("SET default_transaction_read_only = off", "ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
        healed = witness.heals()
    assert {(code, reason) for code, reason, _ in seen} == {(UNAVAILABLE, REASON)}
    print(f"refused in {max(seconds for _, _, seconds in seen):.3f} s, healed {healed:.2f} s")
