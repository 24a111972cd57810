"""Which hosts used a secret lately, and when it was last used: written in batches, read where an account is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TypeVar

from sqlalchemy import and_, bindparam, delete, func, or_, select, tuple_, update

from artstore_grpc.model import Account, SecretUse
from artstore_grpc.store.engine import Database, Transaction
from artstore_grpc.store.queries import insert_into, padded
from artstore_grpc.store.tables import Time, secret_uses, secrets

T = TypeVar("T")

MAX_USES = 20
"""Hosts that are kept of each secret, the latest."""
BATCH = 500
"""Secrets whose uses are one transaction: whoever changes an account waits for no more than that."""

_LAST_USED = (
    update(secrets)
    .where(
        and_(
            secrets.c.id == bindparam("secret_id"),
            or_(secrets.c.last_used_time.is_(None), secrets.c.last_used_time < bindparam("last", type_=Time)),
        )
    )
    .values(last_used_time=bindparam("last", type_=Time), last_used_source=bindparam("source"))
)


async def flush(database: Database, uses: Sequence[SecretUse]) -> None:
    """As `Store.flush_uses`."""
    by_secret = groupby(sorted(uses, key=lambda use: (use.secret_id, use.time)), key=lambda use: use.secret_id)
    for some in batches([(secret_id, list(group)) for secret_id, group in by_secret]):
        async with database.transaction() as transaction:
            present = await _locked(transaction, [secret_id for secret_id, _ in some])
            await _write(
                transaction, {secret_id: found for secret_id, found in some if secret_id in present}, database.dialect
            )


async def with_uses(database: Database, accounts: Sequence[Account]) -> list[Account]:
    """The accounts with the uses of their secrets, the latest first."""
    found: dict[str, list[SecretUse]] = {}
    ids = [secret.id for account in accounts for secret in account.secrets]
    for some in batches(ids):
        wanted = secret_uses.c.secret_id.in_(bindparam("keys", expanding=True))
        latest = select(secret_uses).where(wanted).order_by(secret_uses.c.time.desc(), secret_uses.c.source)
        for row in await database.rows(latest, {"keys": padded(some)}):
            found.setdefault(row.secret_id, []).append(SecretUse(row.secret_id, row.time, row.source))
    return [
        replace(account, secrets=tuple(replace(s, uses=tuple(found.get(s.id, ()))) for s in account.secrets))
        for account in accounts
    ]


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + BATCH] for start in range(0, len(values), BATCH))


async def _locked(transaction: Transaction, ids: Sequence[str]) -> set[str]:
    """Which of the secrets there are, locked in the order in which every other unit locks them."""
    wanted = secrets.c.id.in_(bindparam("keys", expanding=True))
    locked = select(secrets.c.id).where(wanted).order_by(secrets.c.id).with_for_update(key_share=True)
    return {row.id for row in await transaction.rows(locked, {"keys": padded(ids)})}


async def _write(transaction: Transaction, uses: dict[str, list[SecretUse]], dialect: str) -> None:
    if not uses:
        return
    latest = [found[-1] for found in uses.values()]
    last = [{"secret_id": use.secret_id, "last": use.time, "source": use.source} for use in latest]
    await transaction.execute(_LAST_USED, last)
    hosts = {(use.secret_id, use.source): use for found in uses.values() for use in found}
    values = [{"secret_id": use.secret_id, "source": use.source, "time": use.time} for use in hosts.values()]
    seen = insert_into(secret_uses, dialect)
    newer = seen.on_conflict_do_update(
        index_elements=[secret_uses.c.secret_id, secret_uses.c.source],
        set_={"time": seen.excluded.time},
        where=secret_uses.c.time < seen.excluded.time,
    )
    await transaction.execute(newer, values)
    await _trim(transaction, list(uses))


async def _trim(transaction: Transaction, ids: Sequence[str]) -> None:
    """Deletes all but the latest of each secret."""
    place = func.row_number().over(
        partition_by=secret_uses.c.secret_id, order_by=(secret_uses.c.time.desc(), secret_uses.c.source)
    )
    wanted = secret_uses.c.secret_id.in_(bindparam("keys", expanding=True))
    placed = select(secret_uses.c.secret_id, secret_uses.c.source, place.label("place")).where(wanted).subquery()
    surplus = select(placed.c.secret_id, placed.c.source).where(placed.c.place > MAX_USES)
    key = tuple_(secret_uses.c.secret_id, secret_uses.c.source)
    await transaction.execute(delete(secret_uses).where(key.in_(surplus)), {"keys": padded(ids)})
