"""The ledger as auditors read it: pages by filter, checkpoints, ledger keys, and the deletion of what was archived."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Delete, Select, delete, insert, select

from artstore_grpc.model import Comparison, LedgerQuery
from artstore_grpc.records import Checkpoint, LedgerKey
from artstore_grpc.store import rows
from artstore_grpc.store.engine import Database, Transaction
from artstore_grpc.store.queries import ORDERINGS
from artstore_grpc.store.tables import checkpoints, ledger, ledger_keys

LEDGER_KEYS = select(ledger_keys).order_by(ledger_keys.c.create_time, ledger_keys.c.kid)


def ledger_page(query: LedgerQuery) -> Select[Any]:
    """A page of rows by a keyset on the sequence."""
    conditions = [_condition(comparison) for comparison in query.comparisons]
    position = ledger.c.sequence
    if query.after is not None:
        conditions.append(position < query.after if query.newest_first else position > query.after)
    order = position.desc() if query.newest_first else position
    return select(ledger).where(*conditions).order_by(order).limit(query.limit)


def last_row(kind: str) -> Select[Any]:
    """The last row of a kind."""
    return select(ledger).where(ledger.c.kind == kind).order_by(ledger.c.sequence.desc()).limit(1)


def checkpoint_page(after: int, through: int, limit: int) -> Select[Any]:
    """Checkpoints that vouch for rows after one and up to another, in the order of those rows."""
    position = checkpoints.c.sequence
    return (
        select(checkpoints)
        .where(position > after, position <= through)
        .order_by(position, checkpoints.c.number)
        .limit(limit)
    )


def last_checkpoint(through: int | None) -> Select[Any]:
    """The last checkpoint that vouches for a row up to `through`; None: the last of all."""
    found = select(checkpoints).order_by(checkpoints.c.sequence.desc(), checkpoints.c.number.desc()).limit(1)
    return found if through is None else found.where(checkpoints.c.sequence <= through)


def checkpoints_by_number(after: int, limit: int) -> Select[Any]:
    return select(checkpoints).where(checkpoints.c.number > after).order_by(checkpoints.c.number).limit(limit)


async def add_checkpoint(transaction: Transaction, checkpoint: Checkpoint) -> None:
    await transaction.execute(insert(checkpoints), rows.checkpoint_values(checkpoint))


async def add_ledger_key(transaction: Transaction, key: LedgerKey) -> None:
    await transaction.execute(insert(ledger_keys), rows.ledger_key_values(key))


async def delete_ledger(database: Database, through: int, limit: int) -> int:
    """Deletes the oldest rows, at most `limit` of them and none after `through`; returns how many."""
    async with database.transaction() as transaction:
        return (await transaction.execute(_oldest(through, limit))).rowcount


def _oldest(through: int, limit: int) -> Delete:
    batch = select(ledger.c.sequence).where(ledger.c.sequence <= through).order_by(ledger.c.sequence).limit(limit)
    return delete(ledger).where(ledger.c.sequence.in_(batch))


def _condition(comparison: Comparison) -> ColumnElement[bool]:
    """A comparison that `artstore_grpc.filters.LEDGER` allows."""
    return ORDERINGS[comparison.operator](ledger.c[comparison.field], comparison.value)  # type: ignore[no-any-return]
