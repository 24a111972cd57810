"""An export that something happens to while it reads the ledger page by page."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio
from artstore.identity import AdminClient

from artstore_grpc import exports
from artstore_grpc.cli import audit
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.ledger import LedgerBroken
from tests.installation import Installation


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    monkeypatch.setattr(audit, "PAGE", 2)
    with Installation(tmp_path) as installation:
        for _ in range(6):
            installation.account("user")
        yield installation


@pytest_asyncio.fixture
async def client(service: Installation) -> AsyncIterator[AdminClient]:
    who, target = service.administrator, str(service.started.grpc_address)
    async with AdminClient(target, client_id=who.client_id, client_secret=who.client_secret) as opened:
        yield opened


def once(service: Installation, condition: str) -> Callable[[int, int], None]:
    """Deletes rows after the first page was written."""

    def moved(done: int, total: int) -> None:
        if done == 2:
            with closing(sqlite3.connect(service.settings.data_dir / "identity.db")) as database:
                database.execute(f"DELETE FROM ledger WHERE {condition}")
                database.commit()

    return moved


async def test_an_archive_meanwhile(service: Installation, client: AdminClient) -> None:
    """Rows that an archive takes between two pages: the export ends, and says so, rather than leave a gap."""
    with pytest.raises(Failure, match="run it again") as caught:
        await audit.write_export(client, io.BytesIO(), once(service, "sequence <= 5"))
    assert (caught.value.exit, caught.value.reason) == (Exit.CONFLICT, "ARCHIVED_MEANWHILE")


async def test_a_row_that_is_missing(service: Installation, client: AdminClient) -> None:
    """A gap of any other kind is evidence: it is written as it is, and a verifier finds it."""
    written = io.BytesIO()
    await audit.write_export(client, written, once(service, "sequence = 4"))
    written.seek(0)
    with pytest.raises(LedgerBroken) as caught:
        exports.verify(written)
    assert caught.value.sequence == 4


@pytest.mark.parametrize("detail", ["x", "[]", "null", '{"number":"many"}', '{"number":1e999}', "{}"])
async def test_a_record_that_was_altered(service: Installation, client: AdminClient, detail: str) -> None:
    """So is what a row says of a checkpoint or an archive: a verifier finds it, the export is made."""
    written = io.BytesIO()
    with closing(sqlite3.connect(service.settings.data_dir / "identity.db")) as database:
        for sequence, kind in ((3, "checkpoint.signed"), (5, "ledger.archived")):
            database.execute("UPDATE ledger SET kind = ?, detail = ? WHERE sequence = ?", (kind, detail, sequence))
        database.commit()
    assert await audit.write_export(client, written, lambda done, total: None) >= 6
    written.seek(0)
    with pytest.raises(LedgerBroken) as caught:
        exports.verify(written)
    assert caught.value.sequence == 3
