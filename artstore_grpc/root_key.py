"""The root key of an installation: made on its first start, stored encrypted under the key-encryption key, changed.

Everything sealed or tagged is so under keys derived from the root key (vault.py). A new key-encryption key therefore
changes one row, and running replicas, which have the root key in memory, notice nothing. A new root key, for when the
old one may be known to others, seals every key pair again, and forgets the tags and the answers kept for retries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from artstore_grpc.key_encryption import LOCAL, KeyEncryption, Wrapped
from artstore_grpc.model import DELIVERY, WrappedKey
from artstore_grpc.records import SYSTEM, Event, EventKind
from artstore_grpc.store.protocol import Store, Unit
from artstore_grpc.vault import KEY_ID_BYTES, Vault, WrongKey, framed, new_root

ROOT = "root"
"""The name of its row."""
CONTEXT = framed(b"artstore wrapped key", ROOT.encode())

Now = Callable[[], datetime]


class RootKeyChanged(Exception):
    """Another process changed the root key's row meanwhile: nothing was done."""


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What a rekey did: from which key-encryption key to which, by their ids (the same where that was not to do), and
    how many key pairs a new root key has sealed again, None where it is the old root key."""

    old_key: str
    new_key: str
    sealed_again: int | None = None


async def opened(store: Store, encryption: KeyEncryption, now: Now) -> bytes:
    """The root key; as `row_and_root`."""
    _, root = await row_and_root(store, encryption, now)
    return root


async def row_and_root(store: Store, encryption: KeyEncryption, now: Now) -> tuple[WrappedKey, bytes]:
    """The root key and the row that it came from; where there is none it is made, and what release 0.1.0 sealed is
    sealed again. Raises WrongKey, KeyServiceUnavailable, StoreUnavailable."""
    while True:
        row = await store.wrapped_key(ROOT)
        if row is None:
            await _make(store, encryption, now)
            continue
        try:
            return row, await unwrapped(row, encryption)
        except WrongKey:
            if await store.wrapped_key(ROOT) == row:  # otherwise it was rekeyed between two steps of ours
                raise


async def unwrapped(row: WrappedKey, encryption: KeyEncryption) -> bytes:
    return await encryption.unwrap(Wrapped(row.kek_id, row.wrapped), CONTEXT)


async def rewrap(store: Store, old: KeyEncryption, new: KeyEncryption, now: Now, *, renew: bool = False) -> Rewrapped:
    """Encrypts the root key under another key-encryption key; does nothing when it is already. What is stored has been
    decrypted before, and is read back after.

    With `renew` the root key is a new one: every key pair is sealed again, tags and kept answers are forgotten. A
    process that still has the old one in memory would store tags that nobody else accepts: all must be stopped before.
    Raises WrongKey, RootKeyChanged, KeyServiceUnavailable, StoreUnavailable.
    """
    stored, given = await store.wrapped_key(ROOT), await new.current_key()
    if stored is not None and stored.kek_id == given:
        old = new
    # What is replaced below must be the very row that this root key came from: another may hold another root key.
    row, root = await row_and_root(store, old, now)
    if row.kek_id == given and not renew:
        return Rewrapped(given, given)
    kept = new_root() if renew else root
    again = await _wrapped(kept, new, now)
    async with store.unit() as unit:
        if not await unit.replace_wrapped_key(row, again):
            raise RootKeyChanged("Another process changed the root key meanwhile; nothing was done. Try again.")
        count = await _seal_again(unit, Vault(root), Vault(kept)) if renew else None
        unit.record(_event(now(), row.kek_id, again.kek_id, count))
    read_back = await store.wrapped_key(ROOT)
    if read_back != again or await unwrapped(read_back, new) != kept:
        raise RootKeyChanged("What was read back is not what was written: another process has changed it since.")
    return Rewrapped(row.kek_id, again.kek_id, count)


async def _make(store: Store, encryption: KeyEncryption, now: Now) -> None:
    """Of replicas that start at once one inserts its row; the others wait for its commit, and read that."""
    sealing_key = None
    if keys := await store.signing_keys():  # by release 0.1.0, under keys derived from the key-encryption key itself
        sealing_key = encryption.sealing_key()
        needed, given = LOCAL + keys[0].sealed[:KEY_ID_BYTES].hex(), await encryption.current_key()
        if needed != given:
            if await store.wrapped_key(ROOT) is not None:
                return  # another replica has made both meanwhile
            raise WrongKey(f"This database of release 0.1.0 is sealed under {needed}, the given key is {given}.")
    root = new_root()
    row = await _wrapped(root, encryption, now)
    async with store.unit() as unit:
        if await unit.add_wrapped_key(row) and sealing_key is not None:
            count = await _seal_again(unit, Vault(sealing_key), Vault(root))
            unit.record(_event(now(), row.kek_id, row.kek_id, count))


async def _wrapped(root: bytes, encryption: KeyEncryption, now: Now) -> WrappedKey:
    """A row that was seen to open: what can't be decrypted again must never be committed."""
    wrapped = await encryption.wrap(root, CONTEXT)
    row = WrappedKey(ROOT, wrapped.ciphertext, wrapped.key_id, now())
    if await unwrapped(row, encryption) != root:
        raise WrongKey(f"{wrapped.key_id} does not decrypt what it has encrypted.")
    return row


async def _seal_again(unit: Unit, old: Vault, new: Vault) -> int:
    """Every key pair under the new root key, and every secret that waits to be delivered; how many key pairs."""
    again = []
    for key in await unit.sealed_keys():
        try:
            again.append(replace(key, sealed=new.seal(old.open(key.sealed, key.kind, key.kid), key.kind, key.kid)))
        except WrongKey:
            if key.kind != DELIVERY:
                raise  # a delivery that nobody can open is given up by itself (deliveries.py)
    await unit.save_sealed_keys(again)
    await unit.forget_derived()
    return sum(key.kind != DELIVERY for key in again)


def _event(time: datetime, old_key: str, new_key: str, sealed_again: int | None) -> Event:
    detail: dict[str, object] = {"old_key": old_key, "new_key": new_key, "new_root": sealed_again is not None}
    return Event(time, SYSTEM, EventKind.ROOT_KEY_REWRAPPED, ROOT, detail)
