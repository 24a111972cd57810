"""What the use cases ask of a store. Every method raises StoreUnavailable when the database is down or too slow.

Reads outside a unit see committed data. A unit is one transaction: it commits at the end of its `async with`, with
the ledger rows of its recorded events written last (the head row is locked last, so that sequence order is commit
order), and rolls back on an exception. On SQLite a unit is BEGIN IMMEDIATE.

A unit of which a method raised never commits, even if its body caught the error: the `async with` raises it again.
(PostgreSQL would otherwise answer the COMMIT with a silent rollback.)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

from artstore_grpc.model import (
    Account,
    AccountQuery,
    AccountTrust,
    Lease,
    LedgerQuery,
    Look,
    Replay,
    Revocation,
    SealedKey,
    SecretUse,
    SigningKey,
    WrappedKey,
)
from artstore_grpc.records import Checkpoint, Event, LedgerKey, LedgerRow


class Unit(Protocol):
    """One transaction that writes."""

    sequence: int
    """After the commit: the sequence of the last ledger row written; 0 when nothing was recorded."""

    async def account(self, id: str) -> Account | None:
        """An account by id with its secrets and its delivery, locked until the end of the unit; deleted ones too."""

    async def account_by_client_id(self, client_id: str) -> Account | None:
        """As `account`, by client_id."""

    async def system_account_exists(self) -> bool:
        """Whether the installation was bootstrapped."""

    async def add_account(self, account: Account) -> None:
        """Inserts an account and its secrets.

        Raises Conflict("uq_accounts_name"), Conflict("uq_accounts_client_id"), Conflict("pk_secrets").
        """

    async def add_accounts(self, accounts: Sequence[Account]) -> None:
        """As `add_account`, many by two statements."""

    async def rivals(self, client_ids: Sequence[str], names: Sequence[str]) -> list[Account]:
        """Every account with one of these client_ids or names, or whose id is one of these client_ids; deleted ones
        too. They are not locked."""

    async def save_account(self, account: Account) -> None:
        """Writes an account that this unit has read: its columns, its secrets as they now are (those missing are
        deleted, with all that is known of them, new ones inserted, the times and marks of kept ones updated; their tags
        and last uses are left as stored), and its delivery, unless its secret is gone. Raises
        Conflict("uq_accounts_name")."""

    async def purge_account(self, id: str) -> None:
        """Deletes an account, its secrets and its replays."""

    async def add_signing_key(self, key: SigningKey) -> None:
        """Inserts a key."""

    async def save_signing_key(self, key: SigningKey) -> None:
        """Writes a key that this unit has read: its state, its times, its tokens' life."""

    async def delete_signing_key(self, kid: str) -> None:
        """Deletes a key, if it is there."""

    async def signing_keys(self) -> list[SigningKey]:
        """Every key, the oldest first; no other unit reads or changes them until the end of this one."""

    async def add_revocation(self, revocation: Revocation) -> bool:
        """Inserts a revocation; False when the `jti` was revoked before."""

    async def live_revocations(self, account_id: str, now: datetime) -> int:
        """How many revocations of an account's tokens have not expired by `now`, this unit's own included."""

    async def drop_revocations(self, account_id: str) -> None:
        """Deletes every revocation of an account's tokens."""

    async def replay(self, key: bytes) -> Replay | None:
        """What a request_id was answered."""

    async def add_replay(self, replay: Replay) -> None:
        """Inserts. Raises Conflict("pk_replays") when another unit was first, after waiting for that unit's end."""

    async def void_replays(self, account_id: str) -> None:
        """Forgets the sealed answers about an account; their keys stay."""

    async def add_wrapped_key(self, key: WrappedKey) -> bool:
        """Inserts; False when there is one of this name, after waiting for the unit that inserts it."""

    async def replace_wrapped_key(self, old: WrappedKey, new: WrappedKey) -> bool:
        """Replaces a key that is still stored as `old` says; False when it isn't."""

    async def sealed_keys(self) -> list[SealedKey]:
        """What is sealed under the root key, locked: private keys of signing and ledger keys, secrets to deliver."""

    async def save_sealed_keys(self, keys: list[SealedKey]) -> None:
        """Writes their `sealed` again."""

    async def forget_derived(self) -> None:
        """Forgets what was derived from the root key: every secret's tag, every sealed answer."""

    async def require_lease(self, lease: Lease) -> None:
        """Raises LeaseLost unless the lease's fence is still the stored one; locks it until the end of the unit."""

    async def ledger_keys(self) -> list[LedgerKey]:
        """Every ledger key, the oldest first."""

    async def add_ledger_key(self, key: LedgerKey) -> None:
        """Inserts a ledger key."""

    async def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Inserts a checkpoint. Raises Conflict("pk_checkpoints") when there is one of this number."""

    def record(self, event: Event) -> None:
        """Has the event written to the ledger with this unit's commit."""


class Store(Protocol):
    """A durable store."""

    dialect: str
    """`sqlite` or `postgresql`."""

    def unit(self) -> AbstractAsyncContextManager[Unit]:
        """A transaction. Nothing of it is kept if its body raises."""

    async def ping(self) -> None:
        """One cheap round trip."""

    async def account(self, id: str) -> Account | None:
        """An account by id with its secrets; deleted ones too."""

    async def account_by_client_id(self, client_id: str) -> Account | None:
        """As `account`, by client_id."""

    async def accounts_by_id(self, ids: Sequence[str]) -> list[Account]:
        """As `account`, those of many ids by one statement, in any order."""

    async def accounts_by_client_id(self, client_ids: Sequence[str]) -> list[Account]:
        """As `accounts_by_id`, by client_id."""

    async def accounts(self, query: AccountQuery, now: datetime) -> list[Account]:
        """At most `query.limit` accounts in the order of (create_time, id), by a keyset (never OFFSET)."""

    async def shown(self, accounts: Sequence[Account]) -> list[Account]:
        """The accounts with what is read only to be shown: the uses of their secrets, and their deliveries."""

    async def due_accounts(
        self, through: datetime, limit: int, after: tuple[datetime, str] | None = None
    ) -> list[tuple[datetime, Account]]:
        """Accounts to look at by a time, and when, with their deliveries; in the order of (due_time, id)."""

    async def look_later(self, looks: Sequence[Look]) -> None:
        """Moves when to look at accounts; no ledger row, and nothing where an account has changed since."""

    async def secrets_expiring(self, now: datetime, by: datetime) -> int:
        """How many last secrets of accounts, neither deleted nor suspended, expire within 7 days of `now`; under a
        `self` policy with a schedule, those of them that were warned of. `by`: when every account is looked at to which
        anything is due now."""

    async def secrets_expired(self, now: datetime, by: datetime) -> int:
        """How many accounts, neither deleted nor suspended, have expired by `now`: `State.EXPIRED`. `by` as above."""

    async def deliveries_pending(self) -> int:
        """How many new secrets wait to be delivered."""

    async def signing_keys(self) -> list[SigningKey]:
        """Every key, the oldest first."""

    async def wrapped_key(self, name: str) -> WrappedKey | None:
        """A wrapped key by its name."""

    async def revocations(self, now: datetime) -> list[Revocation]:
        """Those whose tokens have not expired by `now`."""

    async def account_trusts(self, epoch_since: datetime) -> list[AccountTrust]:
        """The accounts that are suspended or deleted, or whose epoch was raised since a time."""

    async def revocation(self, jti: str) -> Revocation | None:
        """A revocation by its token's `jti`."""

    async def replay(self, key: bytes) -> Replay | None:
        """What a request_id was answered."""

    async def head(self) -> tuple[int, bytes]:
        """The ledger's last sequence and hash; (0, 32 zero bytes) when it is empty."""

    async def ledger(self, after: int, limit: int) -> list[LedgerRow]:
        """Rows with a sequence greater than `after`, in order."""

    async def ledger_page(self, query: LedgerQuery) -> list[LedgerRow]:
        """At most `query.limit` rows that match, in order."""

    async def last_ledger_row(self, kind: str) -> LedgerRow | None:
        """The last row of a kind."""

    async def delete_ledger(self, through: int, limit: int) -> int:
        """Deletes the oldest rows, at most `limit` of them and none after `through`; returns how many. For what was
        archived only."""

    async def ledger_keys(self) -> list[LedgerKey]:
        """Every ledger key, the oldest first."""

    async def checkpoints(self, after: int, limit: int) -> list[Checkpoint]:
        """Checkpoints with a number greater than `after`, in order."""

    async def checkpoints_of(self, after: int, through: int, limit: int) -> list[Checkpoint]:
        """Checkpoints that vouch for a row after `after` and up to `through`, in the order of those rows."""

    async def last_checkpoint(self, through: int | None = None) -> Checkpoint | None:
        """The last checkpoint that vouches for a row up to `through`; without it the last of all."""

    async def set_tag(self, secret_id: str, tag: bytes) -> None:
        """Stores the tag that a secret's first success earned; no ledger row, nothing if the secret is gone."""

    async def upgrade_hash(self, secret_id: str, old: str, new: str) -> None:
        """Replaces the hash of a secret that is still stored with the old one; no ledger row, nothing if it isn't."""

    async def imported_cost(self, now: datetime) -> int:
        """The highest cost of an imported secret's hash that has not expired by `now`; 0 when there is none."""

    async def use_assertion(self, key: bytes, expire_time: datetime) -> bool:
        """Notes an assertion as used until `expire_time`, without a ledger row; False when it was before. Of several
        at once one is the first."""

    async def flush_uses(self, uses: Sequence[SecretUse]) -> None:
        """Writes last uses and which hosts they were from, the newer ones only and the latest few of each secret; no
        ledger row."""

    async def acquire_lease(self, name: str, holder: str, ttl: timedelta, now: datetime) -> Lease | None:
        """Takes a lease that is free or has expired (the fence grows), or extends one's own (it doesn't); else None."""

    async def release_lease(self, lease: Lease) -> None:
        """Gives a lease back early, if it is still this holder's."""

    async def purge_expired(self, now: datetime, replays_before: datetime, limit: int) -> int:
        """Deletes at most `limit` each of revocations and used assertions that expired by `now`, and of replays made
        before `replays_before`; returns how many in all."""

    async def purgeable_accounts(self, deleted_before: datetime, limit: int) -> list[str]:
        """Ids of accounts deleted before a time."""

    async def close(self) -> None:
        """Closes every connection."""
