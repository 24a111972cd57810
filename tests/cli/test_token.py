"""`token` and `health`: what scripts and probes read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from artstore.identity.v1.token_service_pb2 import IssueTokenResponse
from click.testing import CliRunner

from artstore_grpc.cli.main import main
from artstore_grpc.cli.token import warn_of_expiry
from tests.cli.conftest import Cli


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def test_scope_and_audience(cli: Cli) -> None:
    """Scopes may be repeated or space-delimited; every audience is asked for."""
    token = cli("token", "--scope", "storage.read", "--scope", "identity.audit.read storage.write").stdout.strip()
    assert set(claims(token)["scope"].split()) == {"storage.read", "identity.audit.read", "storage.write"}
    cli("token", "--scope", "storage.everything", code=10)
    cli("token", "--audience", "elsewhere", code=10)


def test_json(cli: Cli, administrator: dict[str, str]) -> None:
    """With --json the whole answer, its numbers as numbers."""
    answer = json.loads(cli("token", "--json").stdout)
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 1800
    assert claims(answer["access_token"])["client_id"] == administrator["ARTSTORE_CLIENT_ID"]


def test_decode_verifies(cli: Cli) -> None:
    """--decode prints header and claims of a token that was verified, and not the token."""
    result = cli("token", "--decode")
    shown = json.loads(result.stdout)
    assert shown["header"]["typ"] == "at+jwt"
    assert shown["claims"]["aud"] == "artstore"
    assert "eyJ" not in result.output


def test_wrong_secret_is_4(cli: Cli) -> None:
    """A wrong secret and an unknown account end alike."""
    wrong = cli("token", code=4, ARTSTORE_CLIENT_SECRET="wrong")
    unknown = cli("token", code=4, ARTSTORE_CLIENT_ID="sa_dev_nobody_00000000")
    assert wrong.stderr.split("(denial")[0] == unknown.stderr.split("(denial")[0]
    assert wrong.stdout == unknown.stdout == ""


@pytest.mark.parametrize(("days", "warned"), [(8, False), (6, True)])
def test_a_secret_about_to_expire_is_told(capsys: pytest.CaptureFixture[str], days: int, warned: bool) -> None:
    """In the last week of a secret each token comes with a warning, on standard error."""
    answer = IssueTokenResponse()
    answer.secret_expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    warn_of_expiry(answer)
    said = capsys.readouterr()
    assert said.out == ""
    assert ("expires" in said.err) is warned


@pytest.mark.parametrize("name", ["readiness", "liveness", "", "artstore.identity.v1.TokenService"])
def test_health(administrator: dict[str, str], name: str) -> None:
    """A probe needs no account; 0 is serving."""
    env = {"ARTSTORE_TARGET": administrator["ARTSTORE_TARGET"]}
    result = CliRunner().invoke(main, ["health", "--service", name], env=env)
    assert (result.exit_code, result.stdout) == (0, "serving\n")
    result = CliRunner().invoke(main, ["health", "--service", name, "--json"], env=env)
    assert json.loads(result.stdout) == {"service": name, "serving": True}


def test_health_of_an_unknown_service_is_6(cli: Cli) -> None:
    """A service that the server doesn't know is named."""
    assert "'nope'" in cli("health", "--service", "nope", code=6).stderr
