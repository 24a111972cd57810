"""Secrets that nobody rotates, and those that their clients do: warned of once, expired once, retired, purged."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from artstore_grpc.changes import Target
from artstore_grpc.errors import InvalidClient
from artstore_grpc.model import BY_HAND, DELETED_RETENTION, SECRET_LIFETIME, SECRET_WARNING, State
from tests.keys.stand import operator
from tests.rotation.stand import DAY, HOUR, MINUTE, TOKEN_LIFETIME, Stand, by_client, stand


async def test_warned_and_expired_once(store_url: str) -> None:
    """Of three replicas that all look every few hours one warns 7 days before, and one says that it has expired; the
    etag, which an operator may hold, is as it was. Log, gauge and ledger say the same."""
    async with stand(store_url, count=3) as at:
        account = await at.account(BY_HAND)
        ends = account.secrets[0].expire_time
        await at.to(ends - SECRET_WARNING - MINUTE)
        assert await at.kinds(account) == []
        await asyncio.gather(*(replica.turn() for replica in at.replicas))
        await at.turns(ends - SECRET_WARNING + 12 * HOUR, 6 * HOUR)
        assert await at.kinds(account) == ["secret.expiring"]
        assert await expiring(at) == 1
        assert (await at.get(account)).state(at.time()) is State.ACTIVE
        await at.to(ends)
        await asyncio.gather(*(replica.turn() for replica in at.replicas))
        assert await at.kinds(account) == ["secret.expiring", "account.expired"]
        assert await expiring(at) == 0
        assert [len(at.steps_logged(action)) for action in ("warn", "expire")] == [1, 1]
        assert {line["level"] for line in (*at.steps_logged("warn"), *at.steps_logged("expire"))} == {"warning"}
        after = await at.get(account)
        assert (after.version, after.state(at.time())) == (account.version, State.EXPIRED)
        assert await at.parts.store.due_accounts(at.time() + 1000 * DAY, 10) == []


async def expiring(at: Stand) -> float | None:
    """What the gauge says, counted anew."""
    await at.parts.census.run()
    return at.parts.metrics.registry.get_sample_value("artstore_secrets_expiring_7_days")


async def test_expired_again(store_url: str) -> None:
    """An account that got a new secret is active, and its next expiry is told again."""
    async with stand(store_url) as at:
        account = await at.account(BY_HAND)
        await at.to(at.time() + SECRET_LIFETIME)
        await at.rotate(account)
        assert (await at.get(account)).state(at.time()) is State.ACTIVE
        await at.to(at.time() + SECRET_LIFETIME)
        told = [kind for kind in await at.kinds(account) if kind == "account.expired"]
        assert told == ["account.expired"] * 2


async def test_rotated_in_time(store_url: str) -> None:
    """Who rotates after the warning is not told again until the new secret's time comes."""
    async with stand(store_url) as at:
        account = await at.account(BY_HAND)
        await at.to(at.time() + SECRET_LIFETIME - SECRET_WARNING)
        await at.rotate(account)
        await at.turns(at.time() + 30 * DAY, 10 * DAY)
        assert await at.kinds(account) == ["secret.expiring", "secret.rotated", "secret.retired"]


async def test_by_hand_the_overlap_is_kept(store_url: str) -> None:
    """An operator's overlap is not cut short, even where nobody seems to need the old secret."""
    async with stand(store_url) as at:
        account = await at.account(BY_HAND)
        answer = await at.rotate(account)
        await at.one.authenticate(account.client_id, answer.client_secret)
        start = at.time()
        await at.turns(start + 23 * HOUR, HOUR)
        assert await at.kinds(account) == ["secret.rotated"]
        await at.to(start + DAY)
        assert await at.kinds(account) == ["secret.rotated", "secret.retired"]


async def test_by_its_client(store_url: str) -> None:
    """A secret under a `self` policy says when its client is to rotate: at the schedule's next time and the overlap it
    expires. The overlap of the policy is what RotateSecret takes, and the old secret goes when it is idle."""
    async with stand(store_url) as at:
        account = await at.account(by_client(overlap=12 * HOUR))
        monday = account.next_rotate_time
        assert monday is not None
        assert account.secrets[0].expire_time == monday + 12 * HOUR
        await at.to(monday + HOUR)
        itself = await at.one.authenticate(account.client_id, at.made[account.id])
        answer = await at.rotate(account, itself)
        new, old = answer.account.secrets
        assert (old.expire_time, new.expire_time) == (at.time() + 11 * HOUR, monday + 7 * DAY + 12 * HOUR)
        await at.one.authenticate(account.client_id, answer.client_secret)
        await at.to(at.time() + TOKEN_LIFETIME + MINUTE)
        assert await at.kinds(account) == ["secret.rotated", "secret.retired"]


async def test_a_client_that_doesn_t(store_url: str) -> None:
    """It is warned of when half of the overlap is left, and then its secret expires, however much it is used."""
    async with stand(store_url) as at:
        account = await at.account(by_client())
        (secret,) = account.secrets
        await at.turns(secret.expire_time - DAY / 2 - MINUTE, DAY)
        assert await at.kinds(account) == []
        await at.to(at.time() + MINUTE)
        assert await at.kinds(account) == ["secret.expiring"]
        await at.to(secret.expire_time)
        assert await at.kinds(account) == ["secret.expiring", "account.expired"]
        with pytest.raises(InvalidClient):
            await at.one.authenticate(account.client_id, at.made[account.id])


async def test_without_a_schedule(store_url: str) -> None:
    """A `self` policy without a schedule means 90 days, as ever."""
    async with stand(store_url) as at:
        account = await at.account(by_client(schedule=""))
        assert account.secrets[0].expire_time == at.time() + SECRET_LIFETIME
        assert account.next_rotate_time == at.time() + SECRET_LIFETIME - DAY


async def test_deleted_accounts_are_purged(store_url: str) -> None:
    """30 days after the deletion, once, whoever comes first; until then nothing else happens to them."""
    async with stand(store_url, count=2) as at:
        account = await at.account(BY_HAND)
        await at.to(at.time() + SECRET_LIFETIME - SECRET_WARNING - DAY)
        await at.parts.accounts.delete(Target(account.id), operator())
        deleted = at.time()
        await at.turns(deleted + DELETED_RETENTION - MINUTE, 5 * DAY)
        assert await at.kinds(account) == []
        await at.to(deleted + DELETED_RETENTION + timedelta(seconds=1))
        assert await at.kinds(account) == ["account.purged"]
        assert await at.parts.store.account(account.id) is None
