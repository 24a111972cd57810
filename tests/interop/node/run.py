"""Runs run.mjs against a service: a part of `make interop`. Needs node and npm, which install its clients."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.installation import Account, Installation
from tests.interop import recipes

HERE = Path(__file__).parent
SECONDS = 300


def main(service: Installation, account: Account) -> int:
    """Installs in a temporary folder, so that nothing is left in the source tree; node's own exit code."""
    given = {
        "GRPC": str(service.started.grpc_address),
        "GATEWAY": service.url,
        "CLIENT_ID": account.client_id,
        "CLIENT_SECRET": account.secret,
        "PROTOS": str(recipes.ROOT / "protos"),
        "GOOGLEAPIS": str(recipes.ROOT / "build" / "googleapis"),
    }
    environment = recipes.surroundings(given)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "run.mjs"):
            shutil.copy(HERE / name, folder)
        install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        subprocess.run(install, cwd=folder, env=environment, check=True, timeout=SECONDS)
        return subprocess.run(["node", "run.mjs"], cwd=folder, env=environment, timeout=SECONDS).returncode
