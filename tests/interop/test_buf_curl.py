"""`buf curl`, another client in Go that goes by reflection."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.installation import Account, Installation

BINARY = Path(sys.executable).parent / "buf"
ISSUE = "artstore.identity.v1.TokenService/IssueToken"
FLAGS = ("--protocol", "grpc", "--http2-prior-knowledge", "--data", "@-")


def test_gets_a_token(service: Installation, client: Account, tmp_path: Path) -> None:
    """It gets a token, over HTTP/2 without TLS."""
    request = {"grant_type": "client_credentials", "client_id": client.client_id, "client_secret": client.secret}
    url = f"http://{service.started.grpc_address}/{ISSUE}"
    done = subprocess.run(
        [BINARY, "curl", *FLAGS, url],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=tmp_path,
        env={"HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tokenType"] == "Bearer"
