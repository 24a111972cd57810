"""Accounts by when to look at them next, and the new secrets that wait to be delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, bindparam, delete, select, update

from artstore_grpc.model import Account, Look
from artstore_grpc.store import rows
from artstore_grpc.store.engine import Database, Transaction
from artstore_grpc.store.queries import due_page, insert_into, padded
from artstore_grpc.store.tables import Time, deliveries, secret_uses
from artstore_grpc.store.tables import accounts as stored

_LATER = (
    update(stored)
    .where(
        and_(
            stored.c.id == bindparam("account_id"),
            stored.c.version == bindparam("seen_version"),
            stored.c.due_time == bindparam("seen", type_=Time),
        )
    )
    .values(due_time=bindparam("later", type_=Time))
)


async def accounts(
    database: Database, through: datetime, limit: int, after: tuple[datetime, str] | None
) -> list[tuple[datetime, Account]]:
    """As `Store.due_accounts`."""
    joined = await database.rows(due_page(through, limit, after))
    times: dict[str, datetime] = {row.id: row.due_time for row in joined}
    found = await with_deliveries(database, rows.accounts(joined))
    return [(times[account.id], account) for account in found]


async def look_later(database: Database, looks: Sequence[Look]) -> None:
    """As `Store.look_later`; in the order of their ids, as any two that do so at once need it."""
    values = [
        {"account_id": look.account_id, "seen_version": look.version, "seen": look.seen, "later": look.due_time}
        for look in sorted(looks, key=lambda look: look.account_id)
    ]
    if values:
        async with database.transaction() as transaction:
            await transaction.execute(_LATER, values)


async def with_deliveries(database: Database, found: Sequence[Account]) -> list[Account]:
    """The accounts with their deliveries."""
    if not found:
        return []
    wanted = select(deliveries).where(deliveries.c.account_id.in_(bindparam("keys", expanding=True)))
    pending = await database.rows(wanted, {"keys": padded([account.id for account in found])})
    by_account = {row.account_id: rows.delivery(row) for row in pending}
    return [replace(account, delivery=by_account.get(account.id)) for account in found]


async def with_delivery(transaction: Transaction, account: Account) -> Account:
    """The account with its delivery, in a transaction that has locked it."""
    pending = await transaction.rows(select(deliveries).where(deliveries.c.account_id == account.id))
    return replace(account, delivery=rows.delivery(pending[0])) if pending else account


async def save_delivery(transaction: Transaction, account: Account, dialect: str) -> None:
    """Writes the delivery of an account, or deletes the one it had."""
    if account.delivery is None:
        await transaction.execute(delete(deliveries).where(deliveries.c.account_id == account.id))
        return
    values = rows.delivery_values(account.id, account.delivery)
    written = insert_into(deliveries, dialect).values(values)
    await transaction.execute(written.on_conflict_do_update(index_elements=[deliveries.c.account_id], set_=values))


async def forget(transaction: Transaction, ids: Sequence[str] | Select[Any]) -> None:
    """Deletes what is known of secrets that are about to be deleted."""
    await transaction.execute(delete(secret_uses).where(secret_uses.c.secret_id.in_(ids)))
    await transaction.execute(delete(deliveries).where(deliveries.c.secret_id.in_(ids)))
