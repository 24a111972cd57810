"""The store on SQLite and PostgreSQL: `store.protocol.Store`, whose docstrings say what each method promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Delete, Select, and_, delete, select, update

from artstore_grpc.ledger import Head
from artstore_grpc.model import (
    Account,
    AccountQuery,
    AccountTrust,
    Lease,
    LedgerQuery,
    Look,
    Replay,
    Revocation,
    SecretUse,
    SigningKey,
    WrappedKey,
)
from artstore_grpc.records import Checkpoint, LedgerKey, LedgerRow
from artstore_grpc.store import audit, census, due, leases, rows, tables, used, wrapped
from artstore_grpc.store.engine import Database
from artstore_grpc.store.queries import (
    ACCOUNT_BY_CLIENT_ID,
    ACCOUNT_BY_ID,
    ACCOUNTS_BY_CLIENT_ID,
    ACCOUNTS_BY_ID,
    HEAD,
    IMPORTED_COST,
    LEDGER_PAGE,
    REFUSED_ACCOUNTS,
    account_page,
    all_signing_keys,
    insert_into,
    padded,
    replay_by_key,
)
from artstore_grpc.store.unit import SqlUnit

POOL_SIZE = 10
CONNECT_TIMEOUT = timedelta(seconds=2)
COMMAND_TIMEOUT = timedelta(seconds=5)


class SqlStore:
    """A durable store. Making one doesn't connect, and one belongs to one event loop.

    `url`: `sqlite:///path` or `postgresql://user:password@host/database`; other URLs raise ValueError.
    `pool_size`: connections at most; who needs one more waits `connect_timeout` for it, then gets StoreUnavailable.
    `command_timeout`: the longest that one statement, its wait for locks included, may take.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = POOL_SIZE,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        command_timeout: timedelta = COMMAND_TIMEOUT,
    ) -> None:
        self._database = Database(
            url, pool_size=pool_size, connect_timeout=connect_timeout, command_timeout=command_timeout
        )
        self.dialect = self._database.dialect
        self.connections = self._database.connections

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[SqlUnit]:
        async with self._database.transaction() as transaction:
            unit = SqlUnit(transaction, self.dialect)
            yield unit
            sequence = await unit.write_ledger()
        unit.sequence = sequence

    async def ping(self) -> None:
        await self.head()

    async def account(self, id: str) -> Account | None:
        return await self._account(ACCOUNT_BY_ID, id)

    async def account_by_client_id(self, client_id: str) -> Account | None:
        return await self._account(ACCOUNT_BY_CLIENT_ID, client_id)

    async def accounts_by_id(self, ids: Sequence[str]) -> list[Account]:
        return rows.accounts(await self._database.rows(ACCOUNTS_BY_ID, {"keys": padded(ids)}))

    async def accounts_by_client_id(self, client_ids: Sequence[str]) -> list[Account]:
        return rows.accounts(await self._database.rows(ACCOUNTS_BY_CLIENT_ID, {"keys": padded(client_ids)}))

    async def accounts(self, query: AccountQuery, now: datetime) -> list[Account]:
        return rows.accounts(await self._database.rows(account_page(query, now, self.dialect)))

    async def shown(self, accounts: Sequence[Account]) -> list[Account]:
        return await due.with_deliveries(self._database, await used.with_uses(self._database, accounts))

    async def due_accounts(
        self, through: datetime, limit: int, after: tuple[datetime, str] | None = None
    ) -> list[tuple[datetime, Account]]:
        return await due.accounts(self._database, through, limit, after)

    async def look_later(self, looks: Sequence[Look]) -> None:
        await due.look_later(self._database, looks)

    async def secrets_expiring(self, now: datetime, by: datetime) -> int:
        warned = await self._count(census.expiring_warned(now))
        return warned + await self._count(census.expiring_unwarned(now, by))

    async def secrets_expired(self, now: datetime, by: datetime) -> int:
        warned = await self._count(census.expired_warned(now))
        return warned + await self._count(census.expired_unwarned(now, by))

    async def deliveries_pending(self) -> int:
        return await self._count(census.PENDING)

    async def signing_keys(self) -> list[SigningKey]:
        return [rows.signing_key(row) for row in await self._database.rows(all_signing_keys())]

    async def wrapped_key(self, name: str) -> WrappedKey | None:
        row = await self._database.row(wrapped.by_name(name))
        return wrapped.model(row) if row else None

    async def revocations(self, now: datetime) -> list[Revocation]:
        live = select(tables.revocations).where(tables.revocations.c.expire_time > now)
        return [rows.revocation(row) for row in await self._database.rows(live)]

    async def account_trusts(self, epoch_since: datetime) -> list[AccountTrust]:
        found = await self._database.rows(REFUSED_ACCOUNTS, {"epoch_since": epoch_since})
        return [rows.account_trust(row) for row in found]

    async def revocation(self, jti: str) -> Revocation | None:
        row = await self._database.row(select(tables.revocations).where(tables.revocations.c.jti == jti))
        return rows.revocation(row) if row else None

    async def replay(self, key: bytes) -> Replay | None:
        row = await self._database.row(replay_by_key(key))
        return rows.replay(row) if row else None

    async def head(self) -> Head:
        (row,) = await self._database.rows(HEAD)
        return row.sequence, row.hash

    async def ledger(self, after: int, limit: int) -> list[LedgerRow]:
        page = {"after": after, "at_most": limit}
        return [rows.ledger_row(row) for row in await self._database.rows(LEDGER_PAGE, page)]

    async def ledger_page(self, query: LedgerQuery) -> list[LedgerRow]:
        return [rows.ledger_row(row) for row in await self._database.rows(audit.ledger_page(query))]

    async def last_ledger_row(self, kind: str) -> LedgerRow | None:
        row = await self._database.row(audit.last_row(kind))
        return rows.ledger_row(row) if row else None

    async def delete_ledger(self, through: int, limit: int) -> int:
        return await audit.delete_ledger(self._database, through, limit)

    async def ledger_keys(self) -> list[LedgerKey]:
        return [rows.ledger_key(row) for row in await self._database.rows(audit.LEDGER_KEYS)]

    async def checkpoints(self, after: int, limit: int) -> list[Checkpoint]:
        found = await self._database.rows(audit.checkpoints_by_number(after, limit))
        return [rows.checkpoint(row) for row in found]

    async def checkpoints_of(self, after: int, through: int, limit: int) -> list[Checkpoint]:
        found = await self._database.rows(audit.checkpoint_page(after, through, limit))
        return [rows.checkpoint(row) for row in found]

    async def last_checkpoint(self, through: int | None = None) -> Checkpoint | None:
        row = await self._database.row(audit.last_checkpoint(through))
        return rows.checkpoint(row) if row else None

    async def set_tag(self, secret_id: str, tag: bytes) -> None:
        async with self._database.transaction() as transaction:
            await transaction.execute(update(tables.secrets).where(tables.secrets.c.id == secret_id).values(tag=tag))

    async def upgrade_hash(self, secret_id: str, old: str, new: str) -> None:
        same = and_(tables.secrets.c.id == secret_id, tables.secrets.c.hash == old)
        async with self._database.transaction() as transaction:
            await transaction.execute(update(tables.secrets).where(same).values(hash=new))

    async def imported_cost(self, now: datetime) -> int:
        (row,) = await self._database.rows(IMPORTED_COST, {"now": now})
        return int(row[0] or 0)

    async def use_assertion(self, key: bytes, expire_time: datetime) -> bool:
        noted = insert_into(tables.assertions, self.dialect).values(key=key, expire_time=expire_time)
        async with self._database.transaction() as transaction:
            return (await transaction.execute(noted.on_conflict_do_nothing())).rowcount == 1

    async def flush_uses(self, uses: Sequence[SecretUse]) -> None:
        await used.flush(self._database, uses)

    async def acquire_lease(self, name: str, holder: str, ttl: timedelta, now: datetime) -> Lease | None:
        return await leases.acquire(self._database, name, holder, ttl, now)

    async def release_lease(self, lease: Lease) -> None:
        await leases.release(self._database, lease)

    async def purge_expired(self, now: datetime, replays_before: datetime, limit: int) -> int:
        revocations, assertions, replays = tables.revocations.c, tables.assertions.c, tables.replays.c
        batches = (
            _delete_some(revocations.jti, revocations.expire_time <= now, limit),
            _delete_some(assertions.key, assertions.expire_time <= now, limit),
            _delete_some(replays.key, replays.create_time < replays_before, limit),
        )
        async with self._database.transaction() as transaction:
            return sum([(await transaction.execute(batch)).rowcount for batch in batches])

    async def purgeable_accounts(self, deleted_before: datetime, limit: int) -> list[str]:
        deleted = tables.accounts.c.delete_time
        oldest = select(tables.accounts.c.id).where(deleted < deleted_before).order_by(deleted).limit(limit)
        return [row.id for row in await self._database.rows(oldest)]

    async def close(self) -> None:
        await self._database.close()

    async def _count(self, query: Select[Any]) -> int:
        (row,) = await self._database.rows(query)
        return int(row[0])

    async def _account(self, query: Select[Any], key: str) -> Account | None:
        return next(iter(rows.accounts(await self._database.rows(query, {"key": key}))), None)


def _delete_some(key: Column[Any], condition: ColumnElement[bool], limit: int) -> Delete:
    """Deletes a batch, so that no transaction is long; what another replica is deleting is left to it."""
    batch = select(key).where(condition).limit(limit).with_for_update(skip_locked=True)
    return delete(key.table).where(key.in_(batch))
