"""A ledger with checkpoints for the tests of its verification, and what an intruder with the database does to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Table, delete, insert, select, update

from artstore_grpc import ledger, notary
from artstore_grpc.audit import Audit, Stretch, Verified
from artstore_grpc.ledger import GENESIS, Head
from artstore_grpc.notary import Notary
from artstore_grpc.records import LedgerRow
from artstore_grpc.store import rows, tables
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.vault import Vault, new_root
from tests.installation import Clock, Log
from tests.store.samples import event

EVERY = 10
"""Rows between two checkpoints of these tests."""


class Ledger:
    """A store whose ledger has checkpoints, with the parts that sign and verify it."""

    def __init__(self, store: SqlStore) -> None:
        self.store, self.clock, self.log = store, Clock(), Log()
        self.vault = Vault(new_root())
        self.notary = self.another_notary("one")
        self.audit = Audit(store, self.vault, self.notary)

    def another_notary(self, holder: str) -> Notary:
        return Notary(self.store, self.vault, self.clock, configured("info", self.log), holder)

    async def grow(self, count: int) -> None:
        """So many rows, by one unit."""
        async with self.store.unit() as unit:
            for number in range(count):
                unit.record(event(f"subject {number}", time=self.clock(), detail={"number": number}))

    async def filled(self, checkpoints: int = 3) -> Ledger:
        """With so many checkpoints, `EVERY` rows or some more apart, and some rows after the last."""
        await self.notary.load()
        for _ in range(checkpoints):
            await self.grow(EVERY)
            await self.notary.run()
        await self.grow(3)
        return self

    async def rows(self) -> list[LedgerRow]:
        return await self.store.ledger(0, 100_000)

    async def verify(self, start: Head = GENESIS, max_rows: int = 50_000, published: Head | None = None) -> Verified:
        return await self.audit.verify(Stretch(start, max_rows, published))

    async def found(self, **options: Any) -> tuple[int, int]:
        """The row and the checkpoint that a verification names; fails when it finds nothing."""
        verified = await self.verify(**options)
        assert verified.broken, "nothing was found"
        assert verified.broken.problem
        return verified.broken.sequence, verified.broken.checkpoint

    async def is_intact(self) -> bool:
        verified = await self.verify()
        return verified.broken is None and not verified.more and verified.last == await self.store.head()

    # What an intruder does

    async def execute(self, *statements: Any) -> list[Any]:
        async with self.store._database.transaction() as transaction:
            return [await transaction.execute(statement) for statement in statements]

    async def alter(self, sequence: int, /, **values: Any) -> None:
        await self.execute(update(tables.ledger).where(tables.ledger.c.sequence == sequence).values(**values))

    async def alter_checkpoint(self, number: int, /, **values: Any) -> None:
        await self.execute(update(tables.checkpoints).where(tables.checkpoints.c.number == number).values(**values))

    async def remove(self, sequence: int) -> None:
        await self.execute(delete(tables.ledger).where(tables.ledger.c.sequence == sequence))

    async def remove_checkpoint(self, number: int) -> None:
        await self.execute(delete(tables.checkpoints).where(tables.checkpoints.c.number == number))

    async def replace_all(self, written: list[LedgerRow], *, head: bool = True) -> None:
        """The whole ledger by other rows, and its head by theirs."""
        statements = [delete(tables.ledger), insert(tables.ledger).values([rows.ledger_values(row) for row in written])]
        if head:
            last = written[-1]
            statements.append(update(tables.ledger_head).values(sequence=last.sequence, hash=last.hash))
        await self.execute(*statements)

    async def table(self, table: Table) -> list[Any]:
        return list(await self.store._database.rows(select(table)))


def rechained(written: list[LedgerRow], at: int, **changes: Any) -> list[LedgerRow]:
    """The rows with one changed, and every hash from there on made anew."""
    head, made = GENESIS, []
    for row in written:
        changed = replace(row, **changes) if row.sequence == at else row
        changed = replace(changed, previous_hash=head[1])
        changed = replace(changed, hash=ledger.row_hash(changed))
        made.append(changed)
        head = (changed.sequence, changed.hash)
    return made


def signing_every(monkeypatch: Any) -> None:
    monkeypatch.setattr(notary, "ROWS", EVERY)
