"""A year of schedules, two replicas that look at the same moment, and clients that know nothing but the sink."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest

from artstore_grpc.sinks.protocol import SinkFailed
from tests.rotation.stand import DAY, MINUTE, Stand, managed, stand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

YEAR = timedelta(days=365)
SCHEDULES = ("0 3 * * 1", "30 12 1,15 * *", "0 0 1 */3 *")


async def look(at: Stand) -> None:
    """Every replica takes its turn at the same time."""
    await asyncio.gather(*(replica.turn() for replica in at.replicas))


async def test_a_year(store_url: str) -> None:
    """Three accounts with a schedule each, looked at when something is due and at random times besides, a sink that
    fails now and then: one rotation for each due time, each delivered, and the secret that is there always works."""
    dice = random.Random(5)
    async with stand(store_url, count=2) as at:
        accounts = [await at.account(managed(schedule=schedule)) for schedule in SCHEDULES]
        due: Counter[str] = Counter()
        end = at.time() + YEAR
        while at.time() < end:
            found = await at.parts.store.due_accounts(end, 1)
            soonest = max(found[0][0], at.time()) if found else end
            at.time.time = min(soonest, at.time() + dice.uniform(0.2, 2) * DAY) + MINUTE / 2
            for account in accounts:
                due[account.id] += ((await at.get(account)).next_rotate_time or end) <= at.time()
            at.shelf.failures = [SinkFailed("Down.")] * (dice.random() < 0.2)
            await look(at)
            for account in accounts:
                there = account.client_id in at.shelf.held
                secret = at.on_shelf(account) if there else at.made[account.id]
                await dice.choice(at.replicas).authenticate(account.client_id, secret)
        for account in accounts:
            kinds = Counter(await at.kinds(account))
            assert kinds["secret.rotated"] == due[account.id]
            assert kinds["secret.rotated"] - kinds["secret.delivered"] in (0, 1)
            assert set(kinds) == {"secret.rotated", "secret.delivered", "secret.retired"}
            made = {delivery.secret_id for delivery in at.shelf.asked if delivery.account_id == account.id}
            assert kinds["secret.delivered"] <= len(made) <= kinds["secret.rotated"]
        assert due[accounts[0].id] in (52, 53)
        assert due[accounts[1].id] in (23, 24)
        assert due[accounts[2].id] >= 4
