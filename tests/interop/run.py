"""`make interop`: clients that others wrote, in JavaScript, Go and TypeScript, against a service of its own.

Needs node, npm and go, and the network for what they install; `make test` needs none of them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.installation import Account, Installation
from tests.interop import recipes
from tests.interop.node import run as node

NEEDED = ("node", "npm", "go")
TOKEN = re.compile(r"^A Bearer token for (\d+) s; TokenService is SERVING\.$", re.MULTILINE)
WRONG = "INVALID_CLIENT"
UNCONFIGURED = 2
"""The exit code where something is missing."""


def refusal(which: Callable[[str], str | None]) -> str:
    """One sentence where a program is missing, else nothing."""
    missing = [name for name in NEEDED if not which(name)]
    return f"make interop needs {', '.join(NEEDED)}; not found: {', '.join(missing)}." if missing else ""


def found(name: str) -> str | None:
    """Where a program is, as a recipe's shell will look for it."""
    return shutil.which(name, path=recipes.search_path(os.environ.get("PATH", "")))


def account_of(service: Installation, account: Account) -> dict[str, str]:
    """What an example reads."""
    return {
        "ARTSTORE_TARGET": str(service.started.grpc_address),
        "ARTSTORE_CLIENT_ID": account.client_id,
        "ARTSTORE_CLIENT_SECRET": account.secret,
    }


def follow(language: str, given: Mapping[str, str]) -> str:
    """Follows a recipe in a fresh copy, then runs its example again with a wrong secret; what the example said."""
    recipes.KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=recipes.KEPT) as folder:
        tree = Path(folder)
        recipes.copy(tree)
        lines = recipes.recipe(language)
        done = recipes.run(lines, tree, given)
        said = TOKEN.search(done.stdout)
        if done.returncode or not said or not int(said[1]):
            raise SystemExit(f"{language}: the recipe failed.\n{done.stdout}{done.stderr}")
        refused = recipes.run(lines[-1:], tree, {**given, "ARTSTORE_CLIENT_SECRET": "wrong"})
        if not refused.returncode or WRONG not in refused.stderr:
            raise SystemExit(f"{language}: a wrong secret was not refused.\n{refused.stdout}{refused.stderr}")
    return said[0]


def main() -> int:
    """All of them, one after the other; the first that fails ends it."""
    if sentence := refusal(found):
        print(sentence, file=sys.stderr)
        return UNCONFIGURED
    with tempfile.TemporaryDirectory() as folder, Installation(Path(folder)) as service:
        account = service.account("user")
        if code := node.main(service, account):
            return code
        for language in recipes.LANGUAGES:
            print(f"{language}: {follow(language, account_of(service, account))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
