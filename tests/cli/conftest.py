"""Fixtures of the commands' tests: a served installation, and the commands called as its clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from artstore_grpc.cli.main import main
from tests.cli.processes import Running, credentials, embedded

Cli = Callable[..., Result]


@pytest.fixture(scope="session")
def service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="session")
def service(service_folder: Path) -> Iterator[Running]:
    """`artstore-grpc serve` on the embedded default, as a process."""
    with embedded(service_folder) as running:
        yield running


@pytest.fixture(scope="session")
def administrator(service: Running, service_folder: Path) -> dict[str, str]:
    """The environment of the first administrator."""
    return credentials(service_folder / "var" / "administrator.env")


@pytest.fixture
def cli(administrator: dict[str, str]) -> Cli:
    """Calls a command, as the administrator unless other variables are given; fails where the exit code is another."""

    def call(*arguments: str, code: int = 0, **variables: str) -> Result:
        result = CliRunner().invoke(main, arguments, env={**administrator, **variables})
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture
def made(cli: Cli, request: pytest.FixtureRequest) -> dict[str, Any]:
    """An account of the test's own, as `accounts create --json` prints it."""
    name = f"{request.node.name}"[:200]
    answer: dict[str, Any] = json.loads(
        cli("accounts", "create", "--name", name, "--role", "user", "--rate-limit", "1000", "--json").stdout
    )
    return answer
