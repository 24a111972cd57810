"""A managed account: rotated at its times, delivered, the old secret ended; and what others do to it meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from artstore_grpc import root_key
from artstore_grpc.changes import Target
from artstore_grpc.errors import InvalidClient, InvalidRequest
from artstore_grpc.key_encryption import LocalKey
from artstore_grpc.model import BY_HAND, SECRET_LIFETIME, State
from artstore_grpc.rotations import MANAGED_LEAD
from artstore_grpc.sinks.protocol import SinkFailed
from tests.keys.stand import operator
from tests.rotation.stand import DAY, HOUR, MINUTE, ROTATED, TOKEN_LIFETIME, managed, stand


async def test_the_life_of_a_secret(store_url: str) -> None:
    """At the due time and not before a new secret is made and delivered; both work, until the overlap has passed."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        first, due = at.made[account.id], account.next_rotate_time
        assert due is not None
        await at.to(due - MINUTE)
        assert await at.kinds(account) == []
        await at.to(due)
        assert await at.kinds(account) == ROTATED
        for secret in (first, at.on_shelf(account)):
            await at.one.authenticate(account.client_id, secret)
        new, old = (after := await at.get(account)).secrets
        assert (new.expire_time, old.expire_time) == (due + SECRET_LIFETIME, at.time() + DAY)
        assert (after.next_rotate_time, after.delivery) == (due + 7 * DAY, None)
        await at.to(at.time() + DAY)
        assert await at.kinds(account) == [*ROTATED, "secret.retired"]
        assert [secret.id for secret in (await at.get(account)).secrets] == [new.id]
        with pytest.raises(InvalidClient):
            await at.one.authenticate(account.client_id, first)


async def test_catching_up(store_url: str) -> None:
    """After three weeks without a turn there is one rotation, not three, and the next one is at the schedule's time."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        assert account.next_rotate_time is not None
        await at.to(account.next_rotate_time + 20 * DAY)
        await at.to(at.time() + MINUTE)
        assert await at.kinds(account) == ROTATED
        assert (await at.get(account)).next_rotate_time == account.next_rotate_time + 21 * DAY


async def test_an_account_that_expired_meanwhile(store_url: str) -> None:
    """A stop of half a year: the account has expired, gets a new secret all the same, and is active again."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        await at.to(at.time() + 2 * SECRET_LIFETIME)
        assert (await at.get(account)).state(at.time()) is State.ACTIVE
        assert [kind for kind in await at.kinds(account) if kind in ROTATED] == ROTATED
        await at.one.authenticate(account.client_id, at.on_shelf(account))


async def test_a_schedule_that_is_longer_than_a_secret_lives(store_url: str) -> None:
    """A yearly schedule: the secret is rotated 8 days before it expires, and nobody is warned."""
    async with stand(store_url) as at:
        account = await at.account(managed(schedule="0 0 31 12 *"))
        assert account.next_rotate_time == account.secrets[0].expire_time - MANAGED_LEAD
        await at.to(account.next_rotate_time)
        await at.to(account.secrets[0].expire_time - HOUR)
        assert await at.kinds(account) == [*ROTATED, "secret.retired"]


async def test_overlap_zero(store_url: str) -> None:
    """The old secret dies with the delivery, not before."""
    async with stand(store_url) as at:
        account = await at.account(managed(overlap=timedelta(0)))
        at.shelf.failures = [SinkFailed("Down.")]
        await at.to(account.next_rotate_time)
        await at.one.authenticate(account.client_id, at.made[account.id])
        await at.to(at.time() + HOUR)
        assert len((await at.get(account)).secrets) == 1
        await at.one.authenticate(account.client_id, at.on_shelf(account))


async def test_two_live_secrets_in_use(store_url: str) -> None:
    """Nothing is taken from anybody: the rotation waits, says so in the log, and comes once one of them has ended."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        second = await at.rotate(account, overlap=30 * DAY)
        await at.to(at.time() + MINUTE)
        assert account.next_rotate_time is not None
        await at.move(account.next_rotate_time - MINUTE)
        for secret in (at.made[account.id], second.client_secret):
            await at.one.authenticate(account.client_id, secret)
        await at.turns(account.next_rotate_time + 5 * MINUTE, MINUTE)
        assert await at.kinds(account) == ROTATED, "the operator's own"
        assert {line["outcome"] for line in at.steps_logged("rotate")} == {"two_live_secrets"}
        await at.parts.rotation.revoke_secret(Target(account.id), account.secrets[0].id, operator())
        await at.turn()
        await at.to(at.time() + MINUTE)
        assert await at.kinds(account) == [*ROTATED, *ROTATED]


async def test_what_can_t_be_done_holds_up_nothing_else(store_url: str) -> None:
    """While a rotation waits, its account is warned of and expires as any other; and an old secret that turns out to be
    idle ends, whereupon the rotation that waited for it comes."""
    async with stand(store_url) as at:
        lost, waiting = await at.account(managed(schedule="0 0 31 12 *")), await at.account(managed())
        second = await at.rotate(waiting, overlap=30 * DAY)
        await at.to(at.time() + MINUTE)
        assert waiting.next_rotate_time is not None
        await at.move(waiting.next_rotate_time - MINUTE)
        for secret in (at.made[waiting.id], second.client_secret):
            await at.one.authenticate(waiting.client_id, secret)
        await at.turns(waiting.next_rotate_time + 2 * HOUR, 10 * MINUTE)
        assert await at.kinds(waiting) == [*ROTATED, "secret.retired", *ROTATED]
        at.parts.scheduled_rotation._deliveries._sinks = {}
        ends = lost.secrets[0].expire_time
        await at.to(ends - 8 * DAY)
        await at.to(ends - 7 * DAY)
        await at.to(ends)
        assert await at.kinds(lost) == ["secret.expiring", "account.expired"]


async def test_a_policy_that_changes_while_a_secret_waits(store_url: str) -> None:
    """No longer managed: the secret that nobody has is gone, the one in use stays. Another place: it goes there."""
    async with stand(store_url) as at:
        gone, moved = await at.account(managed()), await at.account(managed())
        at.shelf.failures = [SinkFailed("Down.")] * 2
        await at.to(gone.next_rotate_time)
        await at.update(gone, rotation_policy=BY_HAND)
        await at.update(moved, rotation_policy=managed(destination="elsewhere"))
        await at.to(at.time() + HOUR)
        assert await at.kinds(gone) == ["secret.rotated", "secret.delivery_abandoned"]
        assert [secret.id for secret in (await at.get(gone)).secrets] == [gone.secrets[0].id]
        assert at.shelf.held["elsewhere"].client_id == moved.client_id


async def test_an_operator_rotates_while_a_secret_waits(store_url: str) -> None:
    """The operator's replaces the one that nobody has, which is never delivered; it goes to the sink itself."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        at.shelf.failures = [SinkFailed("Down.")]
        await at.to(account.next_rotate_time)
        answer = await at.rotate(account)
        await at.to(at.time() + HOUR)
        assert (await at.get(account)).delivery is None
        assert [each.client_secret for each in at.shelf.asked[1:]] == [answer.client_secret]
        assert at.on_shelf(account) == answer.client_secret
        await at.one.authenticate(account.client_id, answer.client_secret)


async def test_an_operator_rotates_with_an_overlap_of_his_own(store_url: str) -> None:
    """The sink gets the secret, whoever has used it by then; the old one lives for as long as the operator said."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        answer = await at.rotate(account, overlap=3 * DAY)
        ends = at.time() + 3 * DAY
        await at.one.authenticate(account.client_id, answer.client_secret)
        await at.to(at.time() + MINUTE)
        assert at.on_shelf(account) == answer.client_secret
        assert (await at.get(account)).secrets[1].expire_time == ends


async def test_a_leaked_secret_is_revoked(store_url: str) -> None:
    """Another one is made and delivered at once, however far the schedule's next time is."""
    async with stand(store_url) as at:
        account = await at.account(managed(schedule="0 0 31 12 *"))
        await at.parts.rotation.revoke_secret(Target(account.id), account.secrets[0].id, operator())
        await at.to(at.time() + MINUTE)
        await at.one.authenticate(account.client_id, at.on_shelf(account))


async def test_a_schedule_that_changes_soon_after_a_delivery(store_url: str) -> None:
    """The secret on the shelf, which its users haven't taken up, outlives the new schedule's next time: no third one
    comes before the old one's overlap has ended."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        await at.to(account.next_rotate_time)
        secret, delivered = at.on_shelf(account), at.time()
        await at.update(account, rotation_policy=managed(schedule="0 */6 * * *", overlap=HOUR))
        await at.turns(delivered + DAY - MINUTE, HOUR)
        assert at.on_shelf(account) == secret
        await at.one.authenticate(account.client_id, secret)


async def test_a_deleted_account_has_nothing_to_deliver(store_url: str) -> None:
    """What was sealed for it is gone with its deletion, and undeleting it brings only what its users have."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        at.shelf.failures = [SinkFailed("Down.")]
        await at.to(account.next_rotate_time)
        await at.parts.accounts.delete(Target(account.id), operator())
        assert await at.parts.store.deliveries_pending() == 0
        await at.parts.accounts.undelete(Target(account.id), operator())
        assert [secret.id for secret in (await at.get(account)).secrets] == [account.secrets[0].id]


async def test_a_suspended_account_waits(store_url: str) -> None:
    """Nothing happens to it until it is activated; then what was due meanwhile happens once."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        await at.parts.accounts.suspend(Target(account.id), operator())
        await at.to(account.next_rotate_time)
        assert await at.kinds(account) == []
        await at.parts.accounts.activate(Target(account.id), operator())
        await at.to(at.time() + MINUTE)
        assert await at.kinds(account) == ROTATED


async def test_idle_replicas_hold_no_lease(store_url: str) -> None:
    """Of two replicas either does what is due, whichever comes first: one rotates, the other delivers. The secret works
    at both in the moment of its delivery, though neither has looked for anything new since."""
    async with stand(store_url, count=2) as at:
        account = await at.account(managed())
        assert account.next_rotate_time is not None
        at.time.time = account.next_rotate_time
        await at.replicas[1].turn()
        await at.move(at.time() + MINUTE)
        await at.replicas[0].turn()
        assert await at.kinds(account) == ROTATED
        new = at.on_shelf(account)
        for replica in at.replicas:
            await replica.authenticate(account.client_id, new)


async def test_the_old_secret_ends_early(store_url: str) -> None:
    """Once the new one is used and the old one was not for a token's life, and the minute that a use may take to the
    store, it is retired; while it is used now and then it lives on to the end of its overlap."""
    async with stand(store_url) as at:
        quiet, busy = await at.account(managed()), await at.account(managed())
        due = quiet.next_rotate_time
        assert due is not None
        await at.to(due)
        for account in (quiet, busy):
            await at.one.authenticate(account.client_id, at.on_shelf(account))
        delivered = at.time()
        await at.to(delivered + TOKEN_LIFETIME)
        assert len((await at.get(quiet)).secrets) == 2
        await at.one.authenticate(busy.client_id, at.made[busy.id])
        await at.to(delivered + TOKEN_LIFETIME + MINUTE)
        assert (await at.kinds(quiet))[2:] == ["secret.retired"]
        for _ in range(10):
            await at.one.authenticate(busy.client_id, at.made[busy.id])
            await at.to(at.time() + TOKEN_LIFETIME)
        assert await at.kinds(busy) == ROTATED
        await at.to(at.time() + MINUTE)
        assert await at.kinds(busy) == [*ROTATED, "secret.retired"]


async def test_a_new_root_key(store_url: str) -> None:
    """A secret that waits when the root key changes is delivered after it, the same one; nothing else opens it."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        at.shelf.failures = [SinkFailed("Down.")]
        await at.to(account.next_rotate_time)
        before = (await at.get(account)).delivery
        key = LocalKey(at.keys.key)
        done = await root_key.rewrap(at.parts.store, key, key, at.time, renew=True)
        assert done.sealed_again == len(await at.parts.store.signing_keys()) + len(await at.parts.store.ledger_keys())
        after = (await at.get(account)).delivery
        assert before is not None
        assert after is not None
        assert before.sealed != after.sealed
    async with stand(store_url, like=at) as again:
        await again.to(again.time() + HOUR)
        first, second = again.shelf.asked
        assert first.client_secret == second.client_secret
        for secret in (at.made[account.id], again.on_shelf(account)):
            await again.one.authenticate(account.client_id, secret)


async def test_no_secret_is_written_down(sqlite_url: str) -> None:
    """While it waits and after, the new secret's text is in no file of the database and in no line of the log; its
    `repr` hides it."""
    async with stand(sqlite_url) as at:
        account = await at.account(managed())
        at.shelf.failures = [SinkFailed("Down.")]
        await at.to(account.next_rotate_time)
        pending = (await at.get(account)).delivery
        assert pending is not None
        text = at.shelf.asked[0].client_secret
        files = sorted(Path(sqlite_url.removeprefix("sqlite:///")).parent.glob("artstore.db*"))
        assert any(pending.sealed in file.read_bytes() for file in files), "the test looks where it is"
        assert not any(text.encode() in file.read_bytes() for file in files)
        await at.to(pending.next_attempt_time)
        assert (await at.get(account)).delivery is None
        assert not any(text.encode() in file.read_bytes() for file in files)
        assert text not in at.logged()
        assert text not in repr(at.shelf.asked)


async def test_bad_policies(store_url: str) -> None:
    """A sink that there isn't, a place that it can't have, an overlap that doesn't fit, no schedule: each is refused
    with its field, and nothing is stored."""
    async with stand(store_url) as at:
        account = await at.account(BY_HAND)
        for field, policy in {
            "sink": managed(sink="nowhere"),
            "destination": managed(destination="/etc"),
            "overlap": managed(overlap=7 * DAY),
            "schedule": managed(schedule=""),
        }.items():
            with pytest.raises(InvalidRequest) as refused:
                await at.update(account, rotation_policy=policy)
            assert [each.field for each in refused.value.violations] == [f"rotation_policy.{field}"]
        assert replace(await at.get(account), secrets=account.secrets) == account
