"""Runs run.mjs against a service of its own: `make interop`. Needs node and npm, which install its clients."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.installation import Installation

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SECONDS = 300


def main() -> int:
    """Installs in a temporary folder, so that nothing is left in the source tree; node's own exit code."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "run.mjs"):
            shutil.copy(HERE / name, folder)
        install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        subprocess.run(install, cwd=folder, check=True, timeout=SECONDS)
        with Installation(Path(folder) / "var") as service:
            account = service.account("user")
            given = {
                "GRPC": str(service.started.grpc_address),
                "GATEWAY": service.url,
                "CLIENT_ID": account.client_id,
                "CLIENT_SECRET": account.secret,
                "PROTOS": str(ROOT / "protos"),
                "GOOGLEAPIS": str(ROOT / "build" / "googleapis"),
            }
            return subprocess.run(["node", "run.mjs"], cwd=folder, env=os.environ | given, timeout=SECONDS).returncode


if __name__ == "__main__":
    sys.exit(main())
