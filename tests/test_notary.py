"""The notary, on both stores: when it signs, that one signs, and that it signs nothing that doesn't hold."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
import pytest_asyncio

from artstore_grpc import checkpoints, notary
from artstore_grpc.checkpoints import CheckpointBroken, NotSigned
from artstore_grpc.errors import LeaseLost
from artstore_grpc.records import EventKind, LedgerRow
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import Vault, WrongKey, new_root
from tests.auditing import EVERY, Ledger, rechained, signing_every


@pytest_asyncio.fixture
async def kept(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    signing_every(monkeypatch)
    made = Ledger(store)
    await made.notary.load()
    return made


async def numbers(kept: Ledger) -> list[int]:
    return [checkpoint.number for checkpoint in await kept.store.checkpoints(0, 100)]


async def test_one_key_however_many_start(kept: Ledger) -> None:
    """Replicas that start at once make one key, which the ledger records with its public half."""
    await asyncio.gather(*(kept.another_notary(f"replica {number}").load() for number in range(4)))
    (key,) = await kept.store.ledger_keys()
    (row,) = [row for row in await kept.rows() if row.kind == EventKind.LEDGER_KEY_CREATED]
    assert row.parsed() == {"public_jwk": key.public_jwk}
    assert row.subject == key.kid == checkpoints.public_key(key.public_jwk).thumbprint()
    assert "d" not in key.public_jwk


async def test_another_key_encryption_key(kept: Ledger) -> None:
    """A start under another key-encryption key is refused."""
    kept.vault = Vault(new_root())
    with pytest.raises(WrongKey):
        await kept.another_notary("two").load()


async def test_after_so_many_rows(kept: Ledger) -> None:
    """One row short of the bound nothing is signed; at the bound the head is, and it is logged."""
    await kept.grow(EVERY - 2)  # the key's own row is one
    await kept.notary.run()
    assert await numbers(kept) == []
    await kept.grow(1)
    head = await kept.store.head()
    await kept.notary.run()
    (checkpoint,) = await kept.store.checkpoints(0, 10)
    assert (checkpoint.sequence, checkpoint.hash) == head
    said = json.loads(kept.log.getvalue().splitlines()[-1])
    assert (said["event"], said["sequence"], said["hash"]) == ("ledger checkpoint", head[0], head[1].hex())


async def test_after_an_hour(kept: Ledger) -> None:
    """Fewer rows are signed when they have waited an hour; a checkpoint's own row alone is never signed again."""
    await kept.grow(1)
    kept.clock.advance(notary.AGE - timedelta(seconds=60))
    await kept.notary.run()
    assert await numbers(kept) == []
    kept.clock.advance(timedelta(seconds=60))
    await kept.notary.run()
    assert await numbers(kept) == [1]
    kept.clock.advance(10 * notary.AGE)
    await kept.notary.run()
    assert await numbers(kept) == [1]
    await kept.grow(1)
    await kept.notary.run()
    assert await numbers(kept) == [1, 2]
    assert await kept.is_intact()


async def test_one_signs(kept: Ledger) -> None:
    """Of replicas that find a checkpoint due at once, one signs it."""
    others = [kept.another_notary(f"replica {number}") for number in range(4)]
    for expected in ([1], [1, 2], [1, 2, 3]):
        await kept.grow(EVERY)
        await asyncio.gather(*(each.run() for each in others))
        assert await numbers(kept) == expected
    assert await kept.is_intact()


async def test_one_that_was_late_signs_nothing(kept: Ledger) -> None:
    """A notary whose lease has passed on can't sign: the fence is checked in the unit."""
    await kept.grow(EVERY)
    lease = await kept.store.acquire_lease(notary.LEASE, "one", notary.LEASE_LIFETIME, kept.clock())
    assert lease
    kept.clock.advance(2 * notary.LEASE_LIFETIME)
    await kept.another_notary("two").run()
    await kept.grow(EVERY)
    with pytest.raises(LeaseLost):
        await kept.notary._sign(lease)
    assert await numbers(kept) == [1]


async def test_what_does_not_hold_is_not_signed(kept: Ledger) -> None:
    """A ledger that is broken after the last checkpoint is reported once, with the row, and never signed."""
    await kept.grow(EVERY)
    await kept.notary.run()
    assert not kept.notary.broken
    await kept.grow(EVERY)
    await kept.alter(15, actor="somebody else")
    for _ in range(3):
        await kept.notary.run()
    assert kept.notary.broken
    assert await numbers(kept) == [1]
    told = [json.loads(line) for line in kept.log.getvalue().splitlines() if "broken" in line]
    assert [line["level"] for line in told] == ["error"]
    assert "row 15" in told[0]["problem"]


async def test_what_holds_again_is_not_called_broken(kept: Ledger) -> None:
    """By the replica that signs, nor by one that finds it signed."""
    await kept.grow(EVERY)
    actor = (await kept.rows())[4].actor
    await kept.alter(5, actor="somebody else")
    other = kept.another_notary("other")
    for each in (kept.notary, other):
        await each.run()
        assert each.broken
    await kept.alter(5, actor=actor)
    await kept.notary.run()
    await other.run()
    assert not kept.notary.broken
    assert not other.broken


async def test_what_does_not_follow_is_not_signed(kept: Ledger) -> None:
    """Rows rewritten from before the last checkpoint on don't follow from what it vouches for."""
    await kept.grow(EVERY)
    await kept.notary.run()
    await kept.grow(EVERY)
    await kept.replace_all(rechained(await kept.rows(), 5, actor="somebody else"))
    await kept.notary.run()
    assert await numbers(kept) == [1]


@pytest.mark.parametrize(
    "change",
    [{"crv": "Ed448"}, {"kid": "another"}, {"kty": "EC"}, {"x": "AAAA"}, {"x": ""}, {"kty": "oct", "k": "AAAA"}],
    ids=str,
)
def test_keys_that_are_none(change: dict[str, str]) -> None:
    """Only an Ed25519 key under its own thumbprint is a ledger key."""
    jwk = {name: str(value) for name, value in checkpoints.generate().as_dict(private=False).items()}
    checkpoints.public_key(jwk)
    with pytest.raises(NotSigned):
        checkpoints.public_key(jwk | change)


@pytest.mark.parametrize("signature", ["", "a.b", "a.b.c", "é.é.é", "x" * 5000, "e30.e30."])
async def test_signatures_that_are_none(kept: Ledger, signature: str) -> None:
    """Whatever stands where a signature should be is named, and never an unexpected error."""
    await kept.grow(EVERY)
    await kept.notary.run()
    await kept.alter_checkpoint(1, signature=signature)
    (checkpoint,) = await kept.store.checkpoints(0, 10)
    with pytest.raises(CheckpointBroken):
        checkpoints.check(checkpoint, None, await kept.notary.keys())


@pytest.mark.parametrize("header", [{"alg": "none"}, {"alg": "HS256"}, {"typ": "JWT"}, {"crit": ["b64"], "b64": True}])
async def test_headers_that_are_refused(kept: Ledger, header: dict[str, object]) -> None:
    """`alg` is pinned, `typ` is a checkpoint's, `crit` is refused."""
    await kept.grow(EVERY)
    await kept.notary.run()
    (checkpoint,) = await kept.store.checkpoints(0, 10)
    head, _, rest = checkpoint.signature.partition(".")
    forged = json.loads(checkpoints.decoded(head)) | header
    signature = f"{checkpoints.encoded(json.dumps(forged).encode())}.{rest}"
    with pytest.raises(NotSigned):
        checkpoints.opened(signature, checkpoints.CHECKPOINT_TYPE, await kept.notary.keys())


async def test_who_was_stopped_for_too_long_raises_no_alarm(kept: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notary whose lease ran out while it read, and who then comes to rows of another's checkpoint, knows too little
    to call the ledger broken."""
    await kept.grow(EVERY)
    read, other = kept.store.ledger, kept.another_notary("two")

    async def stopped(after: int, limit: int) -> list[LedgerRow]:
        found = await read(after, limit)
        monkeypatch.setattr(kept.store, "ledger", read)
        kept.clock.advance(2 * notary.LEASE_LIFETIME)
        await other.run()
        return found

    monkeypatch.setattr(kept.store, "ledger", stopped)
    with pytest.raises(LeaseLost):
        await kept.notary.run()
    assert await numbers(kept) == [1]
    assert "broken" not in kept.log.getvalue()
