"""The notary: keeps the ledger key, and signs the ledger's head every thousand rows, or hourly if something happened.

A key is trusted when the vault opens it for its own `kid`: who can write to the database, but doesn't have the
key-encryption key, can't add one. What is signed was verified first, from the last checkpoint on; a ledger that doesn't
hold is reported in the log and never signed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from artstore_grpc import checkpoints
from artstore_grpc.checkpoints import Archive, Keys
from artstore_grpc.errors import Conflict, LeaseLost, StoreUnavailable
from artstore_grpc.ledger import GENESIS, Head
from artstore_grpc.model import Lease
from artstore_grpc.records import SYSTEM, Checkpoint, Event, EventKind, LedgerKey, LedgerRow
from artstore_grpc.store.protocol import Store
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.vault import Vault, WrongKey
from artstore_grpc.verification import Broken, Verification

INTERVAL = timedelta(seconds=10)
"""How often it looks whether a checkpoint is due."""
ROWS = 1000
"""As many rows as no checkpoint vouches for yet are signed at once."""
AGE = timedelta(hours=1)
"""Fewer are signed once the last checkpoint, or without one the first row, is as old as this."""
LEASE = "checkpoint"
KEY_LEASE = "ledger-key"
LEASE_LIFETIME = timedelta(seconds=60)
FIRST_KEY_PATIENCE = timedelta(seconds=30)
BATCH = 500
"""Rows read and hashed at a time: a few milliseconds, in which the loop does nothing else."""
BATCHES_PER_LEASE = 20
REST = 9
"""How many times as long as a batch took it rests: a million rows that nobody signed yet take a tenth of a core for
some minutes, and nothing from the calls."""


class Notary:
    """One replica's notary; of several one signs, under a lease whose fence the signing unit checks."""

    def __init__(self, store: Store, vault: Vault, now: Callable[[], datetime], logger: Logger, holder: str) -> None:
        self._store = store
        self._vault = vault
        self._now = now
        self._logger = logger
        self._holder = holder
        self._told = ""

    @property
    def broken(self) -> bool:
        """Whether the ledger didn't hold when it was last to be signed."""
        return bool(self._told)

    async def load(self) -> None:
        """Makes the ledger key where there is none: of replicas that start at once one makes it, the others wait.

        Raises StoreUnavailable, and WrongKey for another key-encryption key.
        """
        deadline = asyncio.get_running_loop().time() + FIRST_KEY_PATIENCE.total_seconds()
        while not (stored := await self._store.ledger_keys()):
            if not await self._make_key():
                await asyncio.sleep(0.1)
            if asyncio.get_running_loop().time() > deadline:
                raise StoreUnavailable("another replica holds the lease on the ledger key and makes none")
        opened_key(self._vault, stored[-1])

    async def keys(self) -> Keys:
        """The keys that are trusted, by `kid`, the oldest first."""
        return trusted(self._vault, await self._store.ledger_keys())

    async def run(self) -> None:
        """Signs the head if a checkpoint is due, and no other replica is at it."""
        if not await self._due(await self._store.last_checkpoint()):
            self._told = ""  # a broken one stays due, so that somebody has signed it
            return
        lease = await self._lease()
        if lease is None:
            return
        try:
            await self._sign(lease)
            self._told = ""
        except Broken as broken:
            if self._told != str(broken):
                self._logger.error("the ledger is broken", problem=str(broken))
            self._told = str(broken)
        finally:
            await self._store.release_lease(lease)

    async def archive_record(self, archive: Archive) -> str:
        """The record of an archive, signed by the present key."""
        return checkpoints.archive_record(await self._key(), archive)

    async def _due(self, last: Checkpoint | None) -> bool:
        head, _ = await self._store.head()
        unsigned = head - (last.sequence if last else 0)
        if unsigned >= ROWS:
            return True
        if unsigned <= (1 if last else 0):  # the one is the last checkpoint's own row
            return False
        since = last.time if last else await self._begun()
        return since is not None and self._now() - since >= AGE

    async def _begun(self) -> datetime | None:
        first = await self._store.ledger(0, 1)
        return first[0].time if first else None

    async def _sign(self, lease: Lease) -> None:
        last = await self._store.last_checkpoint()  # again, under the lease: another replica may have just signed
        if not await self._due(last):
            return
        try:
            head, lease = await self._verified(last, lease)
        except Broken:
            if await self._store.last_checkpoint() != last:
                raise LeaseLost(LEASE) from None  # another replica has signed meanwhile: this run knows too little
            raise
        number = last.number + 1 if last else 1
        checkpoint = checkpoints.made(await self._key(), number, head, self._now(), last)
        try:
            async with self._store.unit() as unit:
                await unit.require_lease(lease)
                await unit.add_checkpoint(checkpoint)
                unit.record(recorded(checkpoint))
        except Conflict:
            raise LeaseLost(LEASE) from None
        self._logger.info("ledger checkpoint", number=number, sequence=head[0], hash=head[1].hex())

    async def _verified(self, last: Checkpoint | None, lease: Lease) -> tuple[Head, Lease]:
        """The head, with every row since the last checkpoint verified; keeps the lease meanwhile."""
        keys = await self.keys()
        start = (last.sequence, last.hash) if last else GENESIS
        if last is not None:
            before = await self._store.last_checkpoint(last.sequence - 1)
            checkpoints.check(last, before, keys)
        verification = Verification(keys, start=start, before=last)
        batches = 0
        started = time.perf_counter()
        while rows := await self._store.ledger(verification.head[0], BATCH):
            verification.rows(rows)
            await asyncio.sleep(REST * (time.perf_counter() - started))
            started = time.perf_counter()
            batches += 1
            if batches % BATCHES_PER_LEASE == 0:
                lease = await self._lease() or lease  # one that has passed on is refused by the unit
        return verification.head, lease

    async def _lease(self) -> Lease | None:
        return await self._store.acquire_lease(LEASE, self._holder, LEASE_LIFETIME, self._now())

    async def _key(self) -> OKPKey:
        keys = await self.keys()
        if not keys:
            raise StoreUnavailable("there is no ledger key")
        return list(keys.values())[-1]

    async def _make_key(self) -> bool:
        now = self._now()
        lease = await self._store.acquire_lease(KEY_LEASE, self._holder, LEASE_LIFETIME, now)
        if lease is None:
            return False
        key = sealed_key(self._vault, checkpoints.generate(), now)
        try:
            async with self._store.unit() as unit:
                await unit.require_lease(lease)
                if not await unit.ledger_keys():
                    await unit.add_ledger_key(key)
                    detail = {"public_jwk": key.public_jwk}
                    unit.record(Event(now, SYSTEM, EventKind.LEDGER_KEY_CREATED, key.kid, detail))
        except LeaseLost:
            return False
        await self._store.release_lease(lease)
        return True


def recorded(checkpoint: Checkpoint) -> Event:
    """The ledger's own row of a checkpoint, by which a deleted one is missed."""
    detail = {
        "number": checkpoint.number,
        "sequence": checkpoint.sequence,
        "digest": checkpoints.digest(checkpoint),
    }
    return Event(checkpoint.time, SYSTEM, EventKind.CHECKPOINT_SIGNED, checkpoint.kid, detail)


def sealed_key(vault: Vault, pair: OKPKey, now: datetime) -> LedgerKey:
    kid = str(pair.kid)
    public = {name: str(value) for name, value in pair.as_dict(private=False).items()}
    sealed = vault.seal(json.dumps(pair.as_dict(private=True)).encode(), "ledger key", kid)
    return LedgerKey(kid, public, sealed, now)


def opened_key(vault: Vault, key: LedgerKey) -> OKPKey:
    """The key pair. Raises WrongKey."""
    try:
        pair = OKPKey.import_key(json.loads(vault.open(key.sealed, "ledger key", key.kid)))
    except (JoseError, ValueError):
        raise WrongKey("A ledger key is damaged.") from None
    if pair.thumbprint() != key.kid:
        raise WrongKey("A ledger key is stored under another's id.")
    return pair


def trusted(vault: Vault, stored: list[LedgerKey]) -> dict[str, OKPKey]:
    """Those that the vault opens; others are as if they weren't there."""
    found: dict[str, OKPKey] = {}
    for key in stored:
        try:
            found[key.kid] = opened_key(vault, key)
        except WrongKey:
            continue
    return found


def archive_in(row: LedgerRow | None, keys: Keys) -> Archive | None:
    """The archive that a row of the ledger records; None where none was, or where its record isn't the ledger's."""
    try:
        return checkpoints.archive_of(str(row.parsed()["record"]), keys) if row else None
    except (checkpoints.NotSigned, ValueError, KeyError, TypeError):
        return None
