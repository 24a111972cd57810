"""A unit: one transaction that writes, and the ledger rows that say what it changed. Rules live in the use cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, delete, exists, func, insert, select, update

from artstore_grpc import ledger
from artstore_grpc.errors import Conflict, LeaseLost
from artstore_grpc.model import Account, Lease, Replay, Revocation, SealedKey, Secret, SigningKey, WrappedKey
from artstore_grpc.records import Checkpoint, Event, LedgerKey, LedgerRow
from artstore_grpc.store import audit, due, rows, tables, wrapped
from artstore_grpc.store.engine import POSTGRESQL, Transaction
from artstore_grpc.store.queries import (
    ACCOUNT_BY_CLIENT_ID,
    ACCOUNT_BY_ID,
    ACCOUNTS_BY_ID,
    HEAD,
    LOCKS,
    RIVALS,
    all_signing_keys,
    insert_into,
    padded,
    replay_by_key,
)

KEYS_LOCK = 0x61727473_00000003
"""The PostgreSQL advisory lock of whoever is about to change the signing keys: rows alone don't lock those to come."""
BOOTSTRAP_LOCK = 0x61727473_00000002
"""The PostgreSQL advisory lock of whoever is about to make the first system account; any number no other lock has."""

CHANGING = ("state", "activate_time", "retire_time", "token_lifetime_seconds")
"""The columns of a signing key that change during its life."""
MARKS = ("expire_time", "replace_time", "warned")
"""The columns of a secret that a change of its account may change."""

CHANNEL = "artstore_ledger"
"""The PostgreSQL channel that a commit with ledger rows notifies."""


class SqlUnit:
    """A `store.protocol.Unit` over a transaction of `store.engine`; SqlStore opens it."""

    def __init__(self, transaction: Transaction, dialect: str) -> None:
        self.sequence = 0
        self._transaction = transaction
        self._dialect = dialect
        self._events: list[Event] = []

    async def account(self, id: str) -> Account | None:
        return await self._locked(ACCOUNT_BY_ID, id)

    async def account_by_client_id(self, client_id: str) -> Account | None:
        return await self._locked(ACCOUNT_BY_CLIENT_ID, client_id)

    async def system_account_exists(self) -> bool:
        if self._dialect == POSTGRESQL:
            # Two bootstraps at once must not both find nothing; there is no row yet that they could lock.
            await self._transaction.execute(select(func.pg_advisory_xact_lock(BOOTSTRAP_LOCK)))
        return bool(await self._transaction.value(select(exists().where(tables.accounts.c.is_system))))

    async def add_account(self, account: Account) -> None:
        await self.add_accounts([account])

    async def add_accounts(self, accounts: Sequence[Account]) -> None:
        if accounts:
            await self._transaction.execute(insert(tables.accounts), [rows.account_values(each) for each in accounts])
            await self._add_secrets((account.id, secret) for account in accounts for secret in account.secrets)

    async def rivals(self, client_ids: Sequence[str], names: Sequence[str]) -> list[Account]:
        keys = {"client_ids": padded(client_ids), "names": padded(names)}
        ids = [row.id for row in await self._transaction.rows(RIVALS, keys)]
        if not ids:
            return []
        return rows.accounts(await self._transaction.rows(ACCOUNTS_BY_ID, {"keys": padded(ids)}))

    async def save_account(self, account: Account) -> None:
        if account.delivery and account.delivery.secret_id not in [secret.id for secret in account.secrets]:
            account = replace(account, delivery=None)
        statement = update(tables.accounts).where(tables.accounts.c.id == account.id)
        saved = await self._transaction.execute(statement.values(rows.account_values(account)))
        if saved.rowcount != 1:
            raise LookupError("save_account needs an account that is stored")
        await self._save_secrets(account)
        await due.save_delivery(self._transaction, account, self._dialect)

    async def purge_account(self, id: str) -> None:
        await self._transaction.execute(delete(tables.replays).where(tables.replays.c.account_id == id))
        await due.forget(self._transaction, select(tables.secrets.c.id).where(tables.secrets.c.account_id == id))
        await self._transaction.execute(delete(tables.secrets).where(tables.secrets.c.account_id == id))
        await self._transaction.execute(delete(tables.accounts).where(tables.accounts.c.id == id))

    async def add_signing_key(self, key: SigningKey) -> None:
        await self._transaction.execute(insert(tables.signing_keys), rows.signing_key_values(key))

    async def save_signing_key(self, key: SigningKey) -> None:
        changed = {name: getattr(key, name) for name in CHANGING}
        statement = update(tables.signing_keys).where(tables.signing_keys.c.kid == key.kid).values(changed)
        if (await self._transaction.execute(statement)).rowcount != 1:
            raise self._failed(LookupError("save_signing_key needs a key that is stored"))

    async def delete_signing_key(self, kid: str) -> None:
        await self._transaction.execute(delete(tables.signing_keys).where(tables.signing_keys.c.kid == kid))

    async def signing_keys(self) -> list[SigningKey]:
        await self._lock_keys()
        return [rows.signing_key(row) for row in await self._transaction.rows(all_signing_keys())]

    async def _lock_keys(self) -> None:
        """Until this unit ends nobody else adds or changes a key; SQLite has one writer anyway."""
        if self._dialect == POSTGRESQL:
            await self._transaction.execute(select(func.pg_advisory_xact_lock(KEYS_LOCK)))

    async def add_revocation(self, revocation: Revocation) -> bool:
        return await self._insert_new(tables.revocations, rows.revocation_values(revocation))

    async def live_revocations(self, account_id: str, now: datetime) -> int:
        revocations = tables.revocations.c
        live = (revocations.account_id == account_id) & (revocations.expire_time > now)
        return int(await self._transaction.value(select(func.count()).select_from(tables.revocations).where(live)))

    async def drop_revocations(self, account_id: str) -> None:
        await self._transaction.execute(delete(tables.revocations).where(tables.revocations.c.account_id == account_id))

    async def replay(self, key: bytes) -> Replay | None:
        found = await self._transaction.rows(replay_by_key(key))
        return rows.replay(found[0]) if found else None

    async def add_replay(self, replay: Replay) -> None:
        if not await self._insert_new(tables.replays, rows.replay_values(replay)):
            raise self._failed(Conflict(str(tables.replays.primary_key.name)))

    async def void_replays(self, account_id: str) -> None:
        condition = tables.replays.c.account_id == account_id
        await self._transaction.execute(update(tables.replays).where(condition).values(sealed=None))

    async def add_wrapped_key(self, key: WrappedKey) -> bool:
        return await wrapped.add(self._transaction, key, self._dialect)

    async def replace_wrapped_key(self, old: WrappedKey, new: WrappedKey) -> bool:
        return await wrapped.replace(self._transaction, old, new)

    async def sealed_keys(self) -> list[SealedKey]:
        await self._lock_keys()
        return await wrapped.sealed_keys(self._transaction)

    async def save_sealed_keys(self, keys: list[SealedKey]) -> None:
        await wrapped.save_sealed_keys(self._transaction, keys)

    async def forget_derived(self) -> None:
        await wrapped.forget_derived(self._transaction)

    async def require_lease(self, lease: Lease) -> None:
        stored = select(tables.leases.c.fence).where(tables.leases.c.name == lease.name).with_for_update()
        if await self._transaction.value(stored) != lease.fence:
            raise self._failed(LeaseLost(lease.name))

    async def ledger_keys(self) -> list[LedgerKey]:
        return [rows.ledger_key(row) for row in await self._transaction.rows(audit.LEDGER_KEYS)]

    async def add_ledger_key(self, key: LedgerKey) -> None:
        await audit.add_ledger_key(self._transaction, key)

    async def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        await audit.add_checkpoint(self._transaction, checkpoint)

    def record(self, event: Event) -> None:
        self._events.append(event)

    async def write_ledger(self) -> int:
        """Writes the recorded events, and returns the sequence of the last; 0 without any. Nothing may come after it
        but the commit: it holds the head's row, which every other unit needs, and whose order is the commits' order."""
        self._transaction.check()
        if not self._events:
            return 0
        (head,) = await self._transaction.rows(HEAD.with_for_update())
        written = _chained((head.sequence, head.hash), self._events)
        await self._transaction.execute(insert(tables.ledger), [rows.ledger_values(row) for row in written])
        last = written[-1]
        moved = update(tables.ledger_head).values(sequence=last.sequence, hash=last.hash)
        if self._dialect == POSTGRESQL:
            moved = moved.returning(
                func.pg_notify(CHANNEL, str(last.sequence))
            )  # with the commit, and no trip of its own
        await self._transaction.execute(moved)
        return last.sequence

    async def _locked(self, query: Select[Any], key: str) -> Account | None:
        if self._dialect == POSTGRESQL:
            # A statement of its own: a join that waits for the row's lock would give the new account with the secrets
            # of before the wait. On SQLite the unit has the whole file.
            await self._transaction.execute(LOCKS[query], {"key": key})
        account = next(iter(rows.accounts(await self._transaction.rows(query, {"key": key}))), None)
        return account and await due.with_delivery(self._transaction, account)

    async def _save_secrets(self, account: Account) -> None:
        secrets = tables.secrets
        kept = [secrets.c[name] for name in MARKS]
        stored = await self._transaction.rows(
            select(secrets.c.id, *kept)
            .where(secrets.c.account_id == account.id)
            .order_by(secrets.c.id)  # as flush_uses locks them: in another order the two could wait for each other
            .with_for_update()
        )
        marks: dict[str, tuple[Any, ...]] = {row.id: tuple(row[1:]) for row in stored}
        gone = sorted(marks.keys() - {secret.id for secret in account.secrets})
        if gone:
            await due.forget(self._transaction, gone)
            await self._transaction.execute(delete(secrets).where(secrets.c.id.in_(gone)))
        await self._add_secrets((account.id, s) for s in account.secrets if s.id not in marks)
        await self._mark(s for s in account.secrets if s.id in marks and marks_of(s) != marks[s.id])

    async def _add_secrets(self, secrets: Iterable[tuple[str, Secret]]) -> None:
        """Each with the id of its account."""
        if values := [rows.secret_values(account_id, secret) for account_id, secret in secrets]:
            await self._transaction.execute(insert(tables.secrets), values)

    async def _mark(self, secrets: Iterable[Secret]) -> None:
        values = [dict(zip(MARKS, marks_of(secret), strict=True)) | {"secret_id": secret.id} for secret in secrets]
        if values:
            marked = update(tables.secrets).where(tables.secrets.c.id == bindparam("secret_id"))
            await self._transaction.execute(marked.values({name: bindparam(name) for name in MARKS}), values)

    async def _insert_new(self, table: Any, values: dict[str, Any]) -> bool:
        """False when the key is there already, in which case nothing has failed and the transaction goes on."""
        statement = insert_into(table, self._dialect).values(values).on_conflict_do_nothing()
        return (await self._transaction.execute(statement)).rowcount == 1

    def _failed(self, error: Exception) -> Exception:
        self._transaction.fail(error)
        return error


def marks_of(secret: Secret) -> tuple[Any, ...]:
    return tuple(getattr(secret, name) for name in MARKS)


def _chained(head: ledger.Head, events: Iterable[Event]) -> list[LedgerRow]:
    chained: list[LedgerRow] = []
    for event in events:
        row = ledger.append(head, event)
        chained.append(row)
        head = (row.sequence, row.hash)
    return chained
