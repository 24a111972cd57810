"""The composition of `keys rekey`: the present key-encryption key from the settings, the new one as given, one store.

Running replicas have the root key in memory and go on; each needs the new key-encryption key at its next start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from artstore_grpc import installation, key_files, root_key
from artstore_grpc.key_encryption import KeyEncryption, LocalKey
from artstore_grpc.kms import KmsKey
from artstore_grpc.root_key import Rewrapped
from artstore_grpc.settings import InvalidSettings, Settings
from artstore_grpc.store import schema
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import WrongKey, new_key

Now = Callable[[], datetime]


def managed_file(settings: Settings) -> Path | None:
    """The file that a rekey replaces: the embedded default's own; None where the operator keeps the key."""
    kept_elsewhere = settings.key_encryption_key or settings.key_encryption_kms
    return settings.key_encryption_key_path if settings.embedded and not kept_elsewhere else None


async def to_key(settings: Settings, key: str, now: Now, *, renew: bool = False) -> Rewrapped:
    """Encrypts the root key under a key of 32 bytes in base64. Empty: on the embedded default under a fresh one; else
    the key stays, which only `renew` (a new root key) has a use for. Raises InvalidSettings, SchemaMismatch,
    RootKeyChanged, KeyServiceUnavailable, StoreUnavailable."""
    file = managed_file(settings)
    if not key and file is None and not renew:
        raise InvalidSettings("A new key must be given: only the embedded default makes its own.")
    async with _opened(settings) as (store, old):
        if file is not None:
            return await _replace_file(file, key or new_key(), store, old, now, renew=renew)
        return await _rewrap(store, old, _local(key) if key else old, now, renew=renew)


async def to_kms(settings: Settings, url: str, now: Now, *, renew: bool = False) -> Rewrapped:
    """Encrypts the root key under the key service at `unix:///path`. Raises as `to_key` does."""
    new = KmsKey(url)
    try:
        async with _opened(settings) as (store, old):
            return await _rewrap(store, old, new, now, renew=renew)
    finally:
        await new.close()


async def _replace_file(
    file: Path, key: str, store: SqlStore, old: KeyEncryption, now: Now, *, renew: bool
) -> Rewrapped:
    """The new key is on disk before the database names it, and in its place after. Of an outage nobody knows whether it
    came before the commit: then the staged key stays, and the next start takes it up or leaves it alone."""
    new = _local(key)
    key_files.stage(file, key)
    try:
        done = await _rewrap(store, old, new, now, renew=renew)
    except (root_key.RootKeyChanged, InvalidSettings):
        if await _stored_under(store) != new.id:
            key_files.unstage(file, key)
        raise
    key_files.adopt(file, new.id)
    return done


async def _rewrap(store: SqlStore, old: KeyEncryption, new: KeyEncryption, now: Now, *, renew: bool) -> Rewrapped:
    try:
        return await root_key.rewrap(store, old, new, now, renew=renew)
    except WrongKey as error:
        raise InvalidSettings(str(error)) from None


async def _stored_under(store: SqlStore) -> str:
    row = await store.wrapped_key(root_key.ROOT)
    return row.kek_id if row else ""


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[SqlStore, KeyEncryption]]:
    encryption = await installation.prepare(settings, contract=False)
    store = SqlStore(settings.store_url, pool_size=1)
    try:
        await schema.check(settings.store_url)
        yield store, encryption
    finally:
        await store.close()
        await encryption.close()


def _local(key: str) -> LocalKey:
    try:
        return LocalKey(key)
    except WrongKey as error:
        raise InvalidSettings(str(error)) from None
