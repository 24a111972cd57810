"""The root key over both stores: made once, encrypted again, made anew; and databases of release 0.1.0."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace

import pytest

from artstore_grpc import ledger, root_key
from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.key_encryption import LocalKey, Wrapped
from artstore_grpc.keys import Keyring, generate
from artstore_grpc.kms import KmsKey
from artstore_grpc.model import KeyState, SigningKey
from artstore_grpc.records import SYSTEM, Event, EventKind
from artstore_grpc.store import tables
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import Vault, WrongKey, new_key
from tests.kms.running import KmsPlugin
from tests.roots import now
from tests.store import samples

OLD, NEW = LocalKey(new_key()), LocalKey(new_key())


async def events(store: SqlStore) -> list[dict[str, object]]:
    """The details of what was recorded about the root key; the chain holds."""
    rows = await store.ledger(0, 100)
    assert ledger.verify(rows) == await store.head()
    return [row.parsed() for row in rows if row.kind == EventKind.ROOT_KEY_REWRAPPED]


def keyring(store: SqlStore, root: bytes) -> Keyring:
    return Keyring(store, Vault(root), now, algorithm="ES256", issuer="https://issuer.example")


async def test_replicas_that_start_at_once_have_one_root_key(store_url: str) -> None:
    """Of eight that find no root key one makes it; all have the same, and so has who comes later."""
    stores = [SqlStore(store_url, pool_size=1) for _ in range(8)]
    try:
        roots = await asyncio.gather(*(root_key.opened(each, OLD, now) for each in stores))
        assert len(set(roots)) == 1
        assert await root_key.opened(stores[0], OLD, now) == roots[0]
        assert not await events(stores[0])
    finally:
        for each in stores:
            await each.close()


async def test_another_key_opens_nothing(store: SqlStore) -> None:
    """With another key both are named, and nothing is made or changed."""
    await root_key.opened(store, OLD, now)
    before = await store.wrapped_key(root_key.ROOT)
    with pytest.raises(WrongKey, match=f"{OLD.id}.*{NEW.id}"):
        await root_key.opened(store, NEW, now)
    assert await store.wrapped_key(root_key.ROOT) == before


async def test_a_rekey_keeps_the_root_key(store: SqlStore) -> None:
    """It opens with the new key and no longer with the old; once more changes nothing; the ledger says so once."""
    root = await root_key.opened(store, OLD, now)
    done = await root_key.rewrap(store, OLD, NEW, now)
    assert (done.old_key, done.new_key, done.sealed_again) == (OLD.id, NEW.id, None)
    assert await root_key.opened(store, NEW, now) == root
    with pytest.raises(WrongKey, match=f"{NEW.id}.*{OLD.id}"):
        await root_key.opened(store, OLD, now)
    again = await root_key.rewrap(store, OLD, NEW, now)
    assert again.old_key == again.new_key == NEW.id
    assert await events(store) == [{"old_key": OLD.id, "new_key": NEW.id, "new_root": False}]


async def test_a_rekey_needs_the_present_key(store: SqlStore) -> None:
    """A rekey with a wrong present key is refused, and changes nothing."""
    root = await root_key.opened(store, OLD, now)
    with pytest.raises(WrongKey, match=OLD.id):
        await root_key.rewrap(store, LocalKey(new_key()), NEW, now)
    assert await root_key.opened(store, OLD, now) == root
    assert not await events(store)


async def test_of_rekeys_at_once_one_wins(store_url: str) -> None:
    """Eight rekeys to eight keys: one carries it out or several do one after the other, the others are told; the key
    of the last one opens, and the root key is the one it was."""
    stores = [SqlStore(store_url, pool_size=1) for _ in range(8)]
    keys = [LocalKey(new_key()) for _ in stores]
    try:
        root = await root_key.opened(stores[0], OLD, now)
        attempts = [root_key.rewrap(store, OLD, key, now) for store, key in zip(stores, keys, strict=True)]
        ends = await asyncio.gather(*attempts, return_exceptions=True)
        assert {type(end) for end in ends} <= {root_key.Rewrapped, root_key.RootKeyChanged, WrongKey}
        row = await stores[0].wrapped_key(root_key.ROOT)
        assert row is not None
        (winner,) = (key for key in keys if key.id == row.kek_id)
        assert await root_key.opened(stores[0], winner, now) == root
        done = await events(stores[0])
        assert [each["old_key"] for each in done] == [OLD.id, *(each["new_key"] for each in done[:-1])]
    finally:
        for each in stores:
            await each.close()


async def test_rekeys_and_new_root_keys_at_once(store_url: str) -> None:
    """Rekeys and new root keys race: whatever was committed, the key pairs are sealed under the root key that the row
    holds. A rekey must never bring an older root key back."""
    stores = [SqlStore(store_url, pool_size=1) for _ in range(6)]
    try:
        ring = keyring(stores[0], await root_key.opened(stores[0], OLD, now))
        await ring.load()
        for _ in range(5):
            attempts = [root_key.rewrap(s, OLD, NEW, now, renew=bool(at % 2)) for at, s in enumerate(stores)]
            ends = await asyncio.gather(*attempts, return_exceptions=True)
            assert {type(end) for end in ends} <= {root_key.Rewrapped, root_key.RootKeyChanged, WrongKey}
            assert [end for end in ends if isinstance(end, root_key.Rewrapped)]
            after = keyring(stores[0], await root_key.opened(stores[0], NEW, now))
            await after.load()
            assert after.active.stored.kid == ring.active.stored.kid
            await root_key.rewrap(stores[0], NEW, OLD, now)
    finally:
        for each in stores:
            await each.close()


async def test_there_and_back_with_a_key_service(store: SqlStore) -> None:
    """From a local key to a KMS, to a KMS's next key, and to a local key again: one root key."""
    root = await root_key.opened(store, OLD, now)
    with KmsPlugin() as plugin:
        kms = KmsKey(plugin.url)
        await root_key.rewrap(store, OLD, kms, now)
        assert await root_key.opened(store, kms, now) == root
        plugin.use("key-2")
        done = await root_key.rewrap(store, kms, kms, now)
        assert (done.old_key, done.new_key) == ("kms:key-1", "kms:key-2")
        plugin.forget("key-1")
        assert await root_key.opened(store, kms, now) == root
        await root_key.rewrap(store, kms, NEW, now)
        await kms.close()
    assert await root_key.opened(store, NEW, now) == root


class Forgetful(LocalKey):
    """A key service that loses what it encrypts."""

    async def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        return bytes(32)


async def test_what_does_not_decrypt_is_not_committed(store: SqlStore) -> None:
    """A new key that gives back another plaintext than it got: nothing is changed."""
    root = await root_key.opened(store, OLD, now)
    with pytest.raises(WrongKey, match="does not decrypt"):
        await root_key.rewrap(store, OLD, Forgetful(new_key()), now)
    assert await root_key.opened(store, OLD, now) == root


async def fill(store: SqlStore, vault: Vault) -> tuple[str, str]:
    """An account whose secret has a tag, an answer kept for a retry, a ledger key; ids of the account and the key."""
    account = samples.account(secrets=(samples.secret(tag=b"t" * 32),))
    async with store.unit() as unit:
        await unit.add_account(account)
        await unit.add_replay(samples.replay(key=b"k", account_id=account.id))
        unit.record(samples.event())
    sealed = vault.seal(b"private", "ledger key", "ledger-1")
    row = {"kid": "ledger-1", "public_jwk": {}, "sealed": sealed, "create_time": now()}
    async with store._database.transaction() as transaction:
        await transaction.execute(tables.ledger_keys.insert().values(row))
    return account.id, "ledger-1"


async def check_sealed_anew(store: SqlStore, account_id: str, ledger_kid: str, old: Vault, new: Vault) -> None:
    """Every key pair opens under the new root alone; the tag and the answer are gone, their rows are not."""
    async with store.unit() as unit:
        keys = await unit.sealed_keys()
    assert {key.kind for key in keys} == {"signing key", "ledger key"}
    for key in keys:
        assert new.open(key.sealed, key.kind, key.kid)
        with pytest.raises(WrongKey):
            old.open(key.sealed, key.kind, key.kid)
    account, replay = await store.account(account_id), await store.replay(b"k")
    assert account is not None
    assert [secret.tag for secret in account.secrets] == [None]
    assert replay is not None
    assert replay.sealed is None
    assert new.open(next(key.sealed for key in keys if key.kid == ledger_kid), "ledger key", ledger_kid) == b"private"


async def test_a_new_root_key_seals_everything_again(store: SqlStore) -> None:
    """With `renew` the signing key goes on under another root key: tokens of before verify; the old root key, which
    somebody may have, opens nothing that is stored."""
    old = await root_key.opened(store, OLD, now)
    before = keyring(store, old)
    await before.load()
    token = before.sign(json.dumps(claims()).encode())
    ids = await fill(store, Vault(old))
    done = await root_key.rewrap(store, OLD, NEW, now, renew=True)
    assert done.sealed_again == 2
    new = await root_key.opened(store, NEW, now)
    assert new != old
    await check_sealed_anew(store, *ids, Vault(old), Vault(new))
    after = keyring(store, new)
    await after.load()
    assert after.verify(token)["jti"] == "j"
    assert await events(store) == [{"old_key": OLD.id, "new_key": NEW.id, "new_root": True}]


async def test_a_new_root_key_under_the_same_key(store: SqlStore) -> None:
    """`renew` alone works again and again, under the key that there is."""
    roots = [await root_key.opened(store, OLD, now)]
    for _ in range(2):
        assert (await root_key.rewrap(store, OLD, OLD, now, renew=True)).sealed_again == 0
        roots.append(await root_key.opened(store, OLD, now))
    assert len(set(roots)) == 3


def claims() -> dict[str, object]:
    seconds = int(now().timestamp())
    times = {"iat": seconds, "nbf": seconds, "exp": seconds + 600}
    return {"iss": "https://issuer.example", "sub": "s", "aud": "a", "jti": "j", **times}


async def old_release(store: SqlStore, key: LocalKey) -> SigningKey:
    """A signing key as release 0.1.0 stored it: sealed under keys derived from the key-encryption key itself."""
    made = generate("ES256")
    kid, private = str(made.kid), json.dumps(made.as_dict(private=True)).encode()
    public = {name: str(value) for name, value in made.as_dict(private=False).items() if isinstance(value, str)}
    legacy = Vault(key.sealing_key())
    stored = SigningKey(kid, "ES256", public, legacy.seal(private, "signing key", kid), KeyState.ACTIVE, now(), now())
    async with store.unit() as unit:
        await unit.add_signing_key(stored)
        unit.record(Event(now(), SYSTEM, EventKind.KEY_CREATED, kid, {}))
    return stored


async def test_a_database_of_0_1_0_is_taken_over(store_url: str) -> None:
    """The first start makes a root key and seals the keys again, once however many start; the same key signs on; the
    old key alone opens nothing any more."""
    stores = [SqlStore(store_url, pool_size=1) for _ in range(4)]
    store, legacy = stores[0], Vault(OLD.sealing_key())
    try:
        signing = await old_release(store, OLD)
        ids = await fill(store, legacy)
        roots = await asyncio.gather(*(root_key.opened(each, OLD, now) for each in stores))
        assert len(set(roots)) == 1
        await check_sealed_anew(store, *ids, legacy, Vault(roots[0]))
        ring = keyring(store, roots[0])
        await ring.load()
        assert ring.active.stored.kid == signing.kid
        assert await events(store) == [{"old_key": OLD.id, "new_key": OLD.id, "new_root": True}]
    finally:
        for each in stores:
            await each.close()


async def test_a_database_of_0_1_0_needs_its_key(store: SqlStore) -> None:
    """Another key, or a KMS, which can't have sealed it: both are named, nothing is changed; its own key opens it."""
    signing = await old_release(store, OLD)
    with pytest.raises(WrongKey, match=rf"0\.1\.0.*{OLD.id}.*{NEW.id}"):
        await root_key.opened(store, NEW, now)
    with KmsPlugin() as plugin:
        kms = KmsKey(plugin.url)
        with pytest.raises(WrongKey, match=rf"0\.1\.0.*{OLD.id}.*kms:key-1"):
            await root_key.opened(store, kms, now)
        await kms.close()
    assert await store.signing_keys() == [replace(signing)]
    assert await store.wrapped_key(root_key.ROOT) is None
    assert await root_key.opened(store, OLD, now)


def test_the_derivation_of_0_1_0() -> None:
    """Known answers, computed by release 0.1.0: its key ids and tags are those of a vault with the key as its root."""
    vault = Vault(base64.b64decode("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="))
    assert vault.key_id.hex() == "4710e801"
    assert (
        vault.secret_tag("client", "id", "secret").hex()
        == "f945612231a363abe1a5975ceeeb8fc8aa9cac3902d973a6ff8ed5ea1a4c74bd"
    )
    sealed = base64.b64decode("RxDoAcU+tig7iw08troEb2kXdyhL7uMKm9TbMC2kC8FyggPI4g==")
    assert vault.open(sealed, "signing key", "kid") == b"value"


async def test_a_database_that_is_down() -> None:
    """StoreUnavailable, as everywhere; nothing is guessed."""
    gone = SqlStore("postgresql://nobody@/none?host=/nowhere")
    with pytest.raises(StoreUnavailable):
        await root_key.opened(gone, OLD, now)
    await gone.close()
