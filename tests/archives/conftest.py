"""A ledger of which a part may be archived."""

from __future__ import annotations

import pytest
import pytest_asyncio

from artstore_grpc import archives
from artstore_grpc.store.sql import SqlStore
from tests.archives.stand import KEPT
from tests.auditing import Ledger, signing_every


@pytest_asyncio.fixture
async def kept(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """Six checkpoints; those of the first four may be archived."""
    signing_every(monkeypatch)
    monkeypatch.setattr(archives, "KEPT_ROWS", KEPT)
    monkeypatch.setattr(archives, "BATCH", 4)
    monkeypatch.setattr(archives, "DELETED_AT_ONCE", 7)
    return await Ledger(store).filled(6)
