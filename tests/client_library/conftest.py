"""The client library against real installations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Account, Installation


class Stoppable(Installation):
    """An installation that a test may stop."""

    stopped = False

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            super().__exit__()

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Installation]:
    """An installation that the test has for itself."""
    with Installation(tmp_path / "service") as made:
        yield made


@pytest.fixture
def user(service: Installation) -> Account:
    return service.account("user", rate_limit=1_000_000)


@pytest.fixture
def installations(tmp_path: Path) -> Iterator[Callable[..., Stoppable]]:
    """Starts installations on one folder, one after the other; each may be stopped before the test ends."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Stoppable(tmp_path / "service", **settings))


def credentials_file(path: Path, service: Installation, account: Account, **members: Any) -> Path:
    """A credentials file of an account, as an operator would write it."""
    content = {
        "version": 1,
        "issuer": service.issuer,
        "client_id": account.client_id,
        "client_secret": account.secret,
    }
    path.write_text(json.dumps(content | members))
    path.chmod(0o600)
    return path
