"""Deliveries that fail, are late, or come to nothing: the account keeps a secret that works."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from artstore_grpc import deliveries
from artstore_grpc.changes import Target
from artstore_grpc.model import BY_HAND
from artstore_grpc.scheduled_rotation import AT_ONCE
from artstore_grpc.sinks.protocol import SinkFailed
from tests.keys.stand import operator
from tests.rotation.stand import DAY, HOUR, MINUTE, ROTATED, managed, stand


async def test_a_sink_that_is_down(store_url: str) -> None:
    """The old secret keeps its life while the new one can't be delivered; attempts come later and later, and all of
    them bring the same secret; the account says how far it is; then all goes on as ever."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        due, expires = account.next_rotate_time, account.secrets[0].expire_time
        at.shelf.failures = [SinkFailed("The shelf is down.")] * 5
        await at.to(due)
        waits = []
        while (pending := (await at.get(account)).delivery) is not None:
            assert (pending.attempts, pending.last_error) == (len(waits) + 1, "The shelf is down.")
            assert (await at.get(account)).secrets[1].expire_time == expires
            waits.append((pending.next_attempt_time - at.time()).total_seconds())
            await at.to(pending.next_attempt_time)
        assert all(15 * 2**n <= wait <= 30 * 2**n for n, wait in enumerate(waits))
        assert len({delivery.client_secret for delivery in at.shelf.asked}) == 1
        assert len(at.shelf.asked) == 6
        assert await at.kinds(account) == ROTATED
        assert (await at.get(account)).secrets[1].expire_time == at.time() + DAY
        assert [line["level"] for line in at.steps_logged("deliver")] == ["warning"] * 5 + ["info"]


async def test_a_sink_that_is_silent(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it let an attempt time out, no more of its deliveries are tried in that turn: others would wait for them."""
    monkeypatch.setattr(deliveries, "ATTEMPT_TIMEOUT", timedelta(seconds=0.05))
    async with stand(store_url) as at:
        accounts = [await at.account(managed()) for _ in range(AT_ONCE + 4)]
        at.shelf.meanwhile = asyncio.Event().wait
        await at.to(accounts[0].next_rotate_time)
        assert 1 <= len(at.shelf.asked) <= AT_ONCE
        at.shelf.meanwhile = None
        await at.to(at.time() + MINUTE)
        assert all([(await at.get(each)).delivery is None for each in accounts])


async def test_a_sink_that_says_when(store_url: str) -> None:
    """`retry_after` is obeyed where it is longer than our own wait."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        at.shelf.failures = [SinkFailed("Come again.", retry_after=3 * HOUR)]
        await at.to(account.next_rotate_time)
        pending = (await at.get(account)).delivery
        assert pending is not None
        assert pending.next_attempt_time == at.time() + 3 * HOUR


async def test_a_sink_that_breaks(store_url: str) -> None:
    """An exception that isn't a sink's is a failure like any other; it is logged, and its text is nobody's."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        at.shelf.failures = [RuntimeError("its-text")]
        await at.to(account.next_rotate_time)
        assert (await at.get(account)).delivery is not None
        assert "sink failed unexpectedly" in at.logged()
        assert "its-text" not in at.logged()


async def test_a_sink_that_refuses_for_good(store_url: str) -> None:
    """The undeliverable secret is gone, loudly; an hour later a fresh one is tried. The old one works all along."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        at.shelf.failures = [SinkFailed("No such place.", permanent=True)]
        await at.to(account.next_rotate_time)
        assert await at.kinds(account) == ["secret.rotated", "secret.delivery_abandoned"]
        assert [secret.id for secret in (await at.get(account)).secrets] == [account.secrets[0].id]
        assert at.steps_logged("deliver")[-1]["level"] == "warning"
        await at.one.authenticate(account.client_id, at.made[account.id])
        await at.to(at.time() + HOUR)
        assert (await at.kinds(account))[2:] == ROTATED
        first, second = at.shelf.asked
        assert first.secret_id != second.secret_id
        await at.one.authenticate(account.client_id, at.on_shelf(account))


async def test_a_delivery_that_takes_longer_than_the_old_secret_lives(store_url: str) -> None:
    """When the old secret expires its users have nothing: the one on its way gives way to a fresh one at once, and the
    ledger has warned before."""
    async with stand(store_url) as at:
        account = await at.account(managed(schedule="0 0 31 12 *"))
        at.shelf.failures = [SinkFailed("Down.")] * 10_000
        await at.to(account.next_rotate_time)
        ends = account.secrets[0].expire_time
        await at.to(ends - 7 * DAY)
        assert await at.kinds(account) == ["secret.rotated", "secret.expiring"]
        await at.turns(ends, DAY)
        kinds = await at.kinds(account)
        assert kinds[2:] == ["secret.delivery_abandoned", "secret.rotated"]
        at.shelf.failures.clear()
        await at.to(at.time() + HOUR)
        await at.one.authenticate(account.client_id, at.on_shelf(account))


async def test_a_delivery_whose_answer_was_lost(store_url: str) -> None:
    """A sink that took the secret and then failed: once a client has used it, it counts as delivered."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        at.shelf.failures = [SinkFailed("The answer was lost.")] * 100
        await at.to(account.next_rotate_time)
        await at.one.authenticate(account.client_id, at.shelf.asked[0].client_secret)
        asked = len(at.shelf.asked)
        await at.to(at.time() + HOUR)
        assert await at.kinds(account) == ROTATED
        assert len(at.shelf.asked) == asked


async def test_a_sink_that_the_settings_lost(store_url: str) -> None:
    """No secret is made that nothing could deliver; the account's other fields can still be changed, and the policy
    can be taken away."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        at.parts.scheduled_rotation._deliveries._sinks = {}
        await at.to(account.next_rotate_time)
        assert await at.kinds(account) == []
        assert at.steps_logged("rotate")[-1]["outcome"] == "sink_unknown"
        await at.update(account, description="still")
        changed = await at.update(account, rotation_policy=BY_HAND)
        assert (changed.rotation_policy, changed.next_rotate_time) == (BY_HAND, None)


async def test_a_secret_that_is_ended_while_it_is_delivered(store_url: str) -> None:
    """What the sink was given is void, so that another one is made at once."""
    async with stand(store_url) as at:
        account = await at.account(managed())

        async def ended() -> None:
            await at.parts.rotation.revoke_secret(Target(account.id), at.shelf.asked[-1].secret_id, operator())
            at.shelf.meanwhile = None

        at.shelf.meanwhile = ended
        await at.to(account.next_rotate_time)
        await at.to(at.time() + MINUTE)
        await at.one.authenticate(account.client_id, at.on_shelf(account))
        assert len(at.shelf.asked) == 2


async def test_what_no_key_opens(store_url: str) -> None:
    """A sealed text that is damaged is given up, and a fresh secret comes in its place."""
    async with stand(store_url) as at:
        account = await at.account(managed())
        at.shelf.failures = [SinkFailed("Down.")]
        await at.to(account.next_rotate_time)
        async with at.parts.store.unit() as unit:
            stored = await unit.account(account.id)
            assert stored
            assert stored.delivery
            await unit.save_account(replace(stored, delivery=replace(stored.delivery, sealed=b"damaged")))
        await at.turns(at.time() + 2 * HOUR, HOUR)
        await at.to(at.time() + MINUTE)
        assert await at.kinds(account) == ["secret.rotated", "secret.delivery_abandoned", *ROTATED]
        await at.one.authenticate(account.client_id, at.on_shelf(account))
