"""Secrets of which another system made the hash: how they are proved, upgraded, remembered, and what failures cost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import bcrypt
import pytest
import pytest_asyncio

from artstore_grpc import attempts as attempts_module
from artstore_grpc import secrets
from artstore_grpc.attempts import ImportedTags
from artstore_grpc.changes import Target
from artstore_grpc.credentials import Credentials
from artstore_grpc.errors import InvalidClient, Overloaded, RateLimited, StoreUnavailable
from artstore_grpc.model import Account, Secret
from artstore_grpc.records import SYSTEM, Event, EventKind
from artstore_grpc.secrets import Hasher, hash_cost, imported_id
from artstore_grpc.store.sql import SqlStore
from tests.bcrypt_vectors import VECTORS
from tests.store.samples import account as sample
from tests.store.samples import secret as sample_secret
from tests.test_attempts import COST, Office, now

TEXT = "old secret"


def hashed(text: str = TEXT, cost: int = 4) -> str:
    return bcrypt.hashpw(text.encode(), bcrypt.gensalt(cost)).decode()


class Legacy(Office):
    """An account whose secret came as a hash."""

    def __init__(self, store: SqlStore) -> None:
        super().__init__(store)
        self.hash = hashed()

    async def open(self) -> None:
        await self.replica.load()
        await self.add("legacy", self.hash)
        self.account = await self.stored("legacy")

    async def add(self, client_id: str, hash: str, **fields: Any) -> None:
        time = now()
        made = Secret(imported_id(hash, client_id), hash, time, time + timedelta(days=90), imported=True)
        account = sample(client_id=client_id, create_time=time, **({"secrets": (made,)} | fields))
        detail = {"imported": True, "secret_cost": hash_cost(hash)}
        async with self.store.unit() as unit:
            await unit.add_account(account)
            unit.record(Event(time, SYSTEM, EventKind.ACCOUNT_CREATED, account.id, detail))
        await self.replica.catch_up()

    async def stored(self, client_id: str = "legacy") -> Account:
        found = await self.store.account_by_client_id(client_id)
        assert found is not None
        return found

    async def enter(self, text: str = TEXT, client_id: str = "legacy", source: str = "1.2.3.4") -> Any:
        return await self.authenticator.client(Credentials(client_id, text), source)

    async def again(self) -> Legacy:
        """Another process, or this one after a restart."""
        other = Legacy(self.store)
        await other.replica.load()
        return other


@pytest_asyncio.fixture
async def legacy(store: SqlStore) -> AsyncIterator[Legacy]:
    made = Legacy(store)
    await made.open()
    yield made
    made.hasher.close()


async def test_one_hash_in_each_process(legacy: Legacy) -> None:
    """The first use costs one bcrypt and earns a tag that stays in memory; so does the first after a restart."""
    for process in (legacy, await legacy.again()):
        for _ in range(5):
            assert (await process.enter()).account.client_id == "legacy"
        await asyncio.sleep(0)
        assert process.hasher.durations.count == 1
        assert (await legacy.stored()).secrets[0].tag is None
    process.hasher.close()


async def test_a_cheap_hash_is_made_anew(legacy: Legacy) -> None:
    """The first success replaces a hash below the configured cost, without a ledger row; the secret goes on."""
    before = await legacy.store.head()
    await legacy.enter()
    (secret,) = (await legacy.stored()).secrets
    assert (hash_cost(secret.hash), secret.imported) == (COST, True)
    assert bcrypt.checkpw(TEXT.encode(), secret.hash.encode())
    assert await legacy.store.head() == before
    other = await legacy.again()
    await other.enter()
    assert (await legacy.stored()).secrets == (replace(secret, last_used_time=None),)
    other.hasher.close()


@pytest.mark.parametrize("cost", [COST, COST + 1])
async def test_a_dear_hash_is_kept(legacy: Legacy, cost: int) -> None:
    """A hash at the configured cost, or above, stays as it is."""
    dear = hashed(cost=cost)
    await legacy.add("dear", dear)
    await legacy.enter(client_id="dear")
    assert (await legacy.stored("dear")).secrets[0].hash == dear


async def test_a_wrong_secret_upgrades_nothing(legacy: Legacy) -> None:
    """A failure leaves the hash as it came."""
    with pytest.raises(InvalidClient):
        await legacy.enter("wrong")
    assert (await legacy.stored()).secrets[0].hash == legacy.hash


async def test_two_replicas_upgrade_one_hash(legacy: Legacy) -> None:
    """Both prove the old hash at once: one of the new ones is stored, and both secrets' users go on."""
    other = await legacy.again()
    await asyncio.gather(legacy.enter(), other.enter())
    (secret,) = (await legacy.stored()).secrets
    assert bcrypt.checkpw(TEXT.encode(), secret.hash.encode())
    await asyncio.gather(legacy.enter(), other.enter())
    other.hasher.close()


async def test_upgrade_compares(store: SqlStore) -> None:
    """A hash is replaced only while it is still the one that was proved."""
    kept = sample_secret(hash="old", imported=True)
    async with store.unit() as unit:
        await unit.add_account(sample(client_id="x", secrets=(kept,)))
    await store.upgrade_hash(kept.id, "another", "new")
    assert (await store.account_by_client_id("x")).secrets[0].hash == "old"  # type: ignore[union-attr]
    await store.upgrade_hash(kept.id, "old", "new")
    assert (await store.account_by_client_id("x")).secrets[0].hash == "new"  # type: ignore[union-attr]


@pytest.mark.parametrize(("text", "vector"), VECTORS)
async def test_hashes_of_other_implementations(legacy: Legacy, text: str, vector: str) -> None:
    """Published hashes of every kind are proved, before and after their upgrade, and nothing else is."""
    await legacy.add("theirs", vector)
    assert await legacy.enter(text, "theirs")
    other = await legacy.again()
    assert await other.enter(text, "theirs")
    for wrong in (text[:-1] if len(text) <= secrets.HASHED_BYTES else text[:71], f"x{text}", text.upper() + "."):
        with pytest.raises(InvalidClient):
            await other.enter(wrong, "theirs")
    other.hasher.close()


async def test_only_72_bytes_count(legacy: Legacy) -> None:
    """As where the hash was made: what comes after 72 bytes may be anything, also in the middle of a character."""
    for client_id, text in (("ascii", "a" * 72), ("cut", "a" * 71 + "é")):
        await legacy.add(client_id, bcrypt.hashpw(text.encode()[:72], bcrypt.gensalt(4)).decode())
        assert await legacy.enter(text, client_id)
        assert await legacy.enter(text + "b" * 900, client_id)
        with pytest.raises(InvalidClient):
            await legacy.enter(text[:70], client_id)


@pytest.mark.parametrize("text", ["", TEXT + "\0", "\0", "x" * 1025])
async def test_texts_that_are_no_secret(legacy: Legacy, text: str) -> None:
    """No text, one with a NUL and one over the bound are refused unseen, even where the hash is of what is left."""
    await legacy.add("empty", hashed(""))
    for client_id in ("legacy", "empty", "nobody"):
        with pytest.raises(InvalidClient):
            await legacy.enter(text, client_id)
    assert legacy.hasher.durations.count == 0


async def test_a_secret_of_ours_is_never_an_imported_one(legacy: Legacy) -> None:
    """A text in our own form is looked up by its id: it costs no bcrypt, even if the imported hash is of it."""
    made = secrets.generate()
    await legacy.add("ours", hashed(made.text))
    for client_id in ("ours", "legacy", "nobody"):
        with pytest.raises(InvalidClient):
            await legacy.enter(made.text, client_id)
    assert legacy.hasher.durations.count == 0
    assert attempts_module.find(sample(secrets=(sample_secret(id=made.id, imported=True),)), made.id) is None


@pytest.mark.parametrize("overlap", [timedelta(hours=1), timedelta(0)])
async def test_until_the_first_rotation(legacy: Legacy, overlap: timedelta) -> None:
    """A rotation makes a secret of our own; the imported one lives on for the overlap, or ends with it."""
    rotated = await legacy.rotation.rotate_secret(Target("legacy"), await legacy.enter(), overlap)
    assert await legacy.enter(rotated.client_secret)
    assert [secret.imported for secret in (await legacy.stored()).secrets] == [False, True][: 2 if overlap else 1]
    if overlap:
        assert await legacy.enter()
    else:
        with pytest.raises(InvalidClient):
            await legacy.enter()


async def test_in_an_outage_memory_is_enough(legacy: Legacy) -> None:
    """With the database down the tag in memory proves; without one everybody is refused alike, without a hash."""
    await legacy.add("cold", hashed())
    await legacy.enter()
    await legacy.replica.account_by_client_id("cold")
    legacy.replica.outage_since = 0.0
    legacy.replica._window_seconds = float("inf")
    hashes = legacy.hasher.durations.count
    assert (await legacy.enter()).account.client_id == "legacy"
    for text, client_id in ((TEXT, "cold"), ("wrong", "legacy"), (TEXT, "nobody")):
        with pytest.raises(StoreUnavailable):
            await legacy.enter(text, client_id)
    assert legacy.hasher.durations.count == hashes


async def test_a_change_of_the_account_keeps_the_tag(legacy: Legacy) -> None:
    """What makes this process read the account anew costs its client no bcrypt."""
    await legacy.enter()
    async with legacy.store.unit() as unit:
        account = await unit.account_by_client_id("legacy")
        assert account is not None
        await unit.save_account(replace(account, rate_limit=5))
        unit.record(Event(now(), SYSTEM, EventKind.ACCOUNT_UPDATED, account.id, {}))
    await legacy.replica.catch_up()
    assert (await legacy.enter()).account.rate_limit == 5
    assert legacy.hasher.durations.count == 1


async def test_without_imported_secrets_nothing_is_hashed(store: SqlStore) -> None:
    """As long as no account has an imported secret, a text of free form costs no bcrypt; from then on it does."""
    office = Legacy(store)
    await office.replica.load()
    with pytest.raises(InvalidClient):
        await office.enter("wrong", "nobody")
    assert office.hasher.durations.count == 0
    await office.add("legacy", hashed())
    with pytest.raises(InvalidClient):
        await office.enter("wrong", "nobody")
    await asyncio.sleep(0)
    assert office.hasher.durations.count == 1
    office.hasher.close()


async def test_the_highest_cost_is_known(legacy: Legacy) -> None:
    """A process knows it from the ledger while it runs and from the store when it starts; ended secrets don't count."""
    assert legacy.replica.imported_cost == 4
    await legacy.add("dear", hashed(cost=9))
    assert legacy.replica.imported_cost == 9
    other = await legacy.again()
    assert other.replica.imported_cost == 9
    assert await legacy.store.imported_cost(now() + timedelta(days=91)) == 0
    other.hasher.close()


async def test_a_row_that_was_altered(legacy: Legacy) -> None:
    """Nonsense in a ledger row neither stops the tail nor makes failures dearer than the dearest hash."""
    for cost in ("many", 10**400, None, [16], True, 17):
        async with legacy.store.unit() as unit:
            unit.record(Event(now(), SYSTEM, EventKind.ACCOUNT_CREATED, "x", {"secret_cost": cost}))
        await legacy.replica.catch_up()
    assert legacy.replica.imported_cost == 16


@pytest.fixture
def few(legacy: Legacy) -> int:
    """How many failures of one source are looked at."""
    legacy.failures._free_of_source = 5
    return 5


async def test_failures_of_a_source(legacy: Legacy, few: int) -> None:
    """Whatever client ids a source makes up, so many failures a minute are looked at; others, and tags, go on."""
    for number in range(few):
        with pytest.raises(InvalidClient):
            await legacy.enter("wrong", f"nobody-{number}")
    with pytest.raises(RateLimited):
        await legacy.enter("wrong", "nobody-else")
    with pytest.raises(RateLimited):
        await legacy.enter()
    assert await legacy.enter(source="5.6.7.8")
    assert await legacy.enter(), "a tag comes before any back-off"
    assert legacy.hasher.durations.count <= few + 1


async def test_successes_are_no_failures(legacy: Legacy, few: int) -> None:
    """A crowd behind one address that proves itself for the first time is not taken for somebody who guesses."""
    for number in range(2 * few):
        await legacy.add(f"crowd-{number}", legacy.hash)
    for number in range(2 * few):
        assert await legacy.enter(client_id=f"crowd-{number}")


async def test_free_form_leaves_room_in_the_queue() -> None:
    """Texts of free form fill at most half of the queue, those of one source an eighth; the rest is for others."""
    hasher, free = Hasher(cost=4, threads=1, queue=31), threading.Event()
    hasher._executor.submit(free.wait)  # until all have come
    dear = hashed(cost=9)

    def ask(source: str) -> asyncio.Task[Any]:
        return asyncio.create_task(hasher.proof("wrong", dear, work=9, source=source))

    waiting = [ask(f"source-{number // 4}") for number in range(12)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ask("source-0")
    waiting += [ask("source-3") for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await ask("source-4")
    assert hasher.pending == 16
    others = [asyncio.create_task(hasher.hash("x")) for _ in range(16)]
    await asyncio.sleep(0)
    assert hasher.pending == 32
    free.set()
    await asyncio.gather(*waiting, *others)
    await asyncio.sleep(0.01)
    assert (hasher.pending, hasher._free_form.total()) == (0, 0)
    hasher.close()


def test_tags_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tags used longest ago are dropped first."""
    monkeypatch.setattr(attempts_module, "MAX_IMPORTED_TAGS", 2)
    tags = ImportedTags()
    one, two, three = (sample_secret(imported=True) for _ in range(3))
    tags.learn(one, b"1")
    tags.learn(two, b"2")
    assert tags.proves(one, b"1")
    tags.learn(three, b"3")
    assert [tags.proves(secret, tag) for secret, tag in ((one, b"1"), (two, b"2"), (three, b"3"))] == [
        True,
        False,
        True,
    ]
    assert not tags.proves(one, b"2")


@pytest.mark.parametrize("cost", [4, 5, 6, 7])
def test_every_failure_is_the_same_work(cost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong text costs 2^work rounds, whatever the hash's own cost, and so does a text without a hash."""
    dear = hashed(cost=cost)
    rounds = counted(monkeypatch)
    assert secrets.proved("wrong", dear, cost=6, work=8) == secrets.Proof(matches=False)
    assert sum(rounds) == 2**8
    rounds.clear()
    secrets.proved("wrong", "", cost=6, work=8)
    assert sum(rounds) == 2**8


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds of each bcrypt from now on."""
    rounds: list[int] = []
    check, make = bcrypt.checkpw, bcrypt.hashpw

    class Counting:
        gensalt = staticmethod(bcrypt.gensalt)

        @staticmethod
        def checkpw(text: bytes, hash: bytes) -> bool:
            rounds.append(2 ** int(hash[4:6]))
            return check(text, hash)

        @staticmethod
        def hashpw(text: bytes, salt: bytes) -> bytes:
            rounds.append(2 ** int(salt[4:6]))
            return make(text, salt)

    monkeypatch.setattr(secrets, "bcrypt", Counting)
    return rounds
