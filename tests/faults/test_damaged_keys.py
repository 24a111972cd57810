"""A signing key's row is damaged: its sealed private key can't be opened any more."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.processes.service import Client, Installation, Service, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DAMAGE = (
    "UPDATE signing_keys SET sealed = CAST(substr(sealed, 1, 40) || x'00000000' || substr(sealed, 45) AS BLOB)"
    " WHERE state = ?"
)


def damage(installation: Installation, state: str) -> None:
    """Alters four bytes of the sealed key in this state; fails unless there is exactly one."""
    path = installation.environment["ARTSTORE_DATABASE_URL"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        assert connection.execute(DAMAGE, (state,)).rowcount == 1


def states(installation: Installation) -> dict[str, str]:
    """The state of every key by its id."""
    path = installation.environment["ARTSTORE_DATABASE_URL"].removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        return dict(connection.execute("SELECT kid, state FROM signing_keys").fetchall())


@pytest.mark.parametrize("state", ["active", "prepared"])
def test_a_damaged_key(tmp_path: Path, on_sqlite: Installation, state: str) -> None:
    """A running process goes on with what it holds. One that starts beside it says which key it is, signs by another
    if it must, and takes what the damaged one has signed; so does the first what the new one signs."""
    with ExitStack() as stack:
        first, client = started(stack, tmp_path / "first", on_sqlite)
        made = client.create("account")
        known = (made.service_account.client_id, made.client_secret)
        token = client.issue(*known).access_token
        until(lambda: "prepared" in states(on_sqlite).values(), 60, "a key that can sign next")
        before = states(on_sqlite)
        damage(on_sqlite, state)
        assert client.issue(*known).access_token
        second, other = started(stack, tmp_path / "second", on_sqlite)
        damaged = second.logged("signing key damaged")
        assert before[damaged["kid"]] == state
        later = other.issue(*known).access_token
        assert other.introspect(token).active
        assert set(before) <= set(other.key_ids())
        until(lambda: client.introspect(later).active, 60, "the first process knows the key that signs")
        assert client.issue(*known).access_token
        assert first.running
    active = [kid for kid, now in states(on_sqlite).items() if now == "active"]
    assert len(active) == 1
    assert active[0] != damaged["kid"]


def started(stack: ExitStack, folder: Path, installation: Installation) -> tuple[Service, Client]:
    service = stack.enter_context(Service(folder, installation.environment))
    return service, stack.enter_context(Client(service.grpc_address, installation))
