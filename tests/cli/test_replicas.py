"""`replicas list` shows what is registered in the service's Redis, and says what is missing where it can't."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from artstore_grpc.cli.exits import Exit
from artstore_grpc.cli.main import main
from tests.installation import Installation
from tests.processes.service import until
from tests.servers import Redis


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis of this test's own: one shared with others would list theirs."""
    with Redis() as server:
        yield server


def listed(url: str, *options: str) -> str:
    ran = CliRunner().invoke(main, ["replicas", "list", *options], env={"ARTSTORE_REDIS_URL": url})
    assert ran.exit_code == Exit.OK, ran.stderr
    return ran.stdout


def test_a_service_is_listed_while_it_serves(tmp_path: Path, redis: Redis) -> None:
    """Its address, readiness, version and start, as a table and as JSON; nothing of it after an orderly stop."""
    with Installation(tmp_path, redis_url=redis.url()) as service:
        until(lambda: [each["ready"] for each in json.loads(listed(redis.url(), "--json"))] == [True], 10, "ready")
        (shown,) = json.loads(listed(redis.url(), "--json"))
        assert shown["address"] == str(service.started.grpc_address)
        assert set(shown) == {"address", "ready", "version", "started", "instance"}
        table = listed(redis.url())
        assert all(shown[name] in table for name in ("address", "version", "instance"))
    assert json.loads(listed(redis.url(), "--json")) == []


def test_without_a_redis() -> None:
    """No setting is exit code 10, a Redis that doesn't answer 8; neither repeats the URL, which may hold a password."""
    ran = CliRunner().invoke(main, ["replicas", "list"], env={"ARTSTORE_REDIS_URL": ""})
    assert (ran.exit_code, "ARTSTORE_REDIS_URL" in ran.stderr) == (Exit.INVALID, True)
    url = "redis://:pass-word@127.0.0.1:1/0"
    ran = CliRunner().invoke(main, ["replicas", "list", "--json"], env={"ARTSTORE_REDIS_URL": url})
    assert (ran.exit_code, json.loads(ran.stderr)["error"]["reason"]) == (Exit.UNAVAILABLE, "REDIS_UNAVAILABLE")
    assert "pass-word" not in ran.stderr
