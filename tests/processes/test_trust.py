"""What one process does is known to the others soon, and to verifiers that follow the feed.

The suite shares its machine with itself, so that its bounds are those of any machine: the gates are what `make
bench-trust` reports on one that does nothing else.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes.service import Installation, replicas
from tests.processes.trials import trials, verifier_trials

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TRIALS = 25
SECONDS = 1.0


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("redis", [False, True], ids=["without redis", "redis"])
async def test_every_process_knows_soon(
    tmp_path: Path, on_postgres: Installation, redis_url: str, count: int, redis: bool
) -> None:
    """A revoked token and a suspended account's are refused by every process, and every process signs by another key,
    within a second."""
    environment = on_postgres.environment | {"ARTSTORE_SIGNING_ALGORITHM": "ES256"}
    environment |= {"ARTSTORE_REDIS_URL": redis_url} if redis else {}
    with replicas(tmp_path, environment, count) as services:
        found = await trials(services, on_postgres, TRIALS)
    print(f"{count} processes, {'Redis' if redis else 'no Redis'}: {found}")
    assert all(figures.percentile(95) <= SECONDS for figures in found.values())


async def test_a_verifier_refuses_within_a_second(tmp_path: Path, on_postgres: Installation) -> None:
    """A verifier that follows the feed refuses what was revoked at another process within a second of the response; it
    goes on to do so from the moment on that the server it follows is killed."""
    with replicas(tmp_path, on_postgres.environment, 2) as services:
        first, second, feed = await verifier_trials(services, on_postgres, TRIALS)
    print(f"{first}; after the kill {second}; {feed.reconnects} reconnects")
    assert first.percentile(95) <= SECONDS
    assert second.percentile(95) <= SECONDS
    assert second.seconds[0] <= 5 * SECONDS  # it had to find the other server first, and to read what is there
    assert feed.reconnects
