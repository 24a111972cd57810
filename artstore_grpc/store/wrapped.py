"""The installation's wrapped keys, and what is sealed under the root key: what a change of either rewrites."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Select, and_, bindparam, select, update

from artstore_grpc.model import DELIVERY, SealedKey, WrappedKey
from artstore_grpc.store import tables
from artstore_grpc.store.engine import Transaction
from artstore_grpc.store.queries import insert_into

SEALED: dict[str, Column[str]] = {
    "signing key": tables.signing_keys.c.kid,
    "ledger key": tables.ledger_keys.c.kid,
    DELIVERY: tables.deliveries.c.secret_id,
}
"""What names the rows of the tables with a `sealed`, by the word that is in its context with that name."""


def by_name(name: str) -> Select[Any]:
    return select(tables.wrapped_keys).where(tables.wrapped_keys.c.name == name)


def model(row: Any) -> WrappedKey:
    return WrappedKey(**row._mapping)


def values(key: WrappedKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in WrappedKey.__slots__}


async def add(transaction: Transaction, key: WrappedKey, dialect: str) -> bool:
    """As `Unit.add_wrapped_key`."""
    statement = insert_into(tables.wrapped_keys, dialect).values(values(key)).on_conflict_do_nothing()
    return (await transaction.execute(statement)).rowcount == 1


async def replace(transaction: Transaction, old: WrappedKey, new: WrappedKey) -> bool:
    """As `Unit.replace_wrapped_key`."""
    stored = tables.wrapped_keys
    same = and_(stored.c.name == old.name, stored.c.wrapped == old.wrapped, stored.c.kek_id == old.kek_id)
    return (await transaction.execute(update(stored).where(same).values(values(new)))).rowcount == 1


async def sealed_keys(transaction: Transaction) -> list[SealedKey]:
    """As `Unit.sealed_keys`."""
    found: list[SealedKey] = []
    for kind, key in SEALED.items():
        locked = select(key.label("kid"), key.table.c.sealed).order_by(key).with_for_update()
        found += [SealedKey(kind, row.kid, row.sealed) for row in await transaction.rows(locked)]
    return found


async def save_sealed_keys(transaction: Transaction, keys: list[SealedKey]) -> None:
    """As `Unit.save_sealed_keys`."""
    for kind, name in SEALED.items():
        again = [{"key_id": key.kid, "again": key.sealed} for key in keys if key.kind == kind]
        if again:
            statement = update(name.table).where(name == bindparam("key_id")).values(sealed=bindparam("again"))
            await transaction.execute(statement, again)


async def forget_derived(transaction: Transaction) -> None:
    """As `Unit.forget_derived`."""
    await transaction.execute(update(tables.secrets).where(tables.secrets.c.tag.is_not(None)).values(tag=None))
    await transaction.execute(update(tables.replays).where(tables.replays.c.sealed.is_not(None)).values(sealed=None))
