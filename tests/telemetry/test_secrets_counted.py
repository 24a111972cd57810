"""Secrets that are about to expire, and accounts that have: what is counted, and what is not, in either database."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from artstore_grpc import census, scheduled_rotation
from artstore_grpc.census import Census
from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.model import (
    Account,
    PendingDelivery,
    PublicKey,
    RotationMode,
    RotationPolicy,
)
from artstore_grpc.store.sql import SqlStore
from tests.installation import Installation
from tests.processes.service import until
from tests.store.samples import DAY, NOW, account, add, secret
from tests.telemetry.scrapes import Scrape

SELF = RotationPolicy(mode=RotationMode.SELF, schedule="0 6 * * MON", overlap=DAY)
UNPLANNED = replace(SELF, schedule="")
MANAGED = RotationPolicy(mode=RotationMode.MANAGED, sink="files")
WEEK = 7 * DAY
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
KEY = PublicKey("thumbprint", "", "ES256", {"kty": "EC"})


def ending(*times: timedelta, **changes: Any) -> Account:
    """An account whose secrets end so long after NOW, the newest first; that replaced the others."""
    made = tuple(
        secret(expire_time=NOW + time, create_time=NOW - (at * DAY), replace_time=NOW if at else None)
        for at, time in enumerate(times)
    )
    return account(secrets=made, **changes)


def warned(made: Account) -> Account:
    """The same after the warning of its last secret, which is the newest that was delivered."""
    pending = made.delivery.secret_id if made.delivery else ""
    last = next((each.id for each in made.secrets if each.id != pending), "")
    return replace(made, secrets=tuple(replace(each, warned=each.id == last) for each in made.secrets))


def undelivered(old: timedelta, new: timedelta) -> Account:
    """A managed account whose new secret waits to be delivered."""
    made = ending(new, old, rotation_policy=MANAGED)
    pending = PendingDelivery(made.secrets[0].id, b"sealed", NOW, NOW + WEEK, NOW)
    secrets = tuple(replace(each, replace_time=None) for each in made.secrets)
    return replace(made, secrets=secrets, delivery=pending)


EXPIRING = {
    "in a second": lambda: ending(SECOND),
    "in seven days": lambda: ending(WEEK),
    "both of its secrets": lambda: ending(3 * DAY, DAY),
    "one with a key beside it": lambda: ending(DAY, public_keys=(KEY,)),
    "one that its client rotates when it likes": lambda: ending(DAY, rotation_policy=UNPLANNED),
    "one whose successor was not delivered": lambda: undelivered(DAY, 90 * DAY),
    "a managed one that nobody rotated": lambda: ending(DAY, rotation_policy=MANAGED),
}
EXPIRED = {
    "a moment ago": lambda: ending(timedelta(0)),
    "long ago": lambda: ending(-300 * DAY, -400 * DAY),
}
NEITHER = {
    "past seven days": lambda: ending(WEEK + SECOND),
    "a newer one lives on": lambda: ending(80 * DAY, SECOND),
    "a suspended account's": lambda: ending(DAY, suspended=True),
    "a suspended account's, expired": lambda: ending(-DAY, suspended=True),
    "a deleted account's": lambda: ending(DAY, delete_time=NOW),
    "a deleted account's, expired": lambda: ending(-DAY, delete_time=NOW),
    "expired, with a key": lambda: ending(-DAY, public_keys=(KEY,)),
    "expired, with a certificate": lambda: ending(-DAY, certificate_subject="san_dns:a.b"),
    "undelivered, with an old one that lives on": lambda: undelivered(30 * DAY, 90 * DAY),
    "none at all": lambda: ending(),
}


STATES = {"warned of": warned, "not yet": lambda made: made}


async def counted(store: SqlStore, made: Account) -> tuple[int | None, int | None]:
    await add(store, replace(made, delivery=None))
    if made.delivery is not None:
        async with store.unit() as unit:
            assert await unit.account(made.id)
            await unit.save_account(made)
    made_now = Census(store, lambda: NOW)
    await made_now.run()
    return made_now.secrets_expiring, made_now.secrets_expired


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("case", EXPIRING)
async def test_about_to_expire(store: SqlStore, case: str, state: str) -> None:
    """The last secret of a live account, from 7 days before it ends, whether or not anybody has warned of it yet."""
    assert await counted(store, STATES[state](EXPIRING[case]())) == (1, 0)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("case", EXPIRED)
async def test_expired(store: SqlStore, case: str, state: str) -> None:
    """An account that has nothing left to prove itself by, for as long as nobody gives it a secret, or deletes it."""
    assert await counted(store, STATES[state](EXPIRED[case]())) == (0, 1)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("case", NEITHER)
async def test_neither(store: SqlStore, case: str, state: str) -> None:
    """What nobody has to do anything about."""
    assert await counted(store, STATES[state](NEITHER[case]())) == (0, 0)


async def test_a_short_life(store: SqlStore) -> None:
    """A secret that its client rotates by a schedule may always be near its end: it is counted once it is late, which
    is when it was warned of; and when it has expired as any other."""
    assert await counted(store, ending(DAY, rotation_policy=SELF)) == (0, 0)
    # Half of its overlap, when it is warned of, is left for another half of an hour.
    assert await counted(store, ending(DAY / 2 + HOUR / 2, rotation_policy=SELF)) == (0, 0)
    assert await counted(store, warned(ending(DAY, rotation_policy=SELF))) == (1, 0)
    assert await counted(store, ending(-DAY, rotation_policy=SELF)) == (1, 1)


async def test_all_at_once(store: SqlStore) -> None:
    """Each is counted once, whatever others there are."""
    for cases in (EXPIRING, EXPIRED, NEITHER):
        for state in STATES.values():
            for case in cases.values():
                last = await counted(store, state(case()))
    assert last == (2 * len(EXPIRING), 2 * len(EXPIRED))


def test_as_far_ahead_as_a_step_may_be_put_off() -> None:
    """What can't be done is looked at again within the time that the census looks ahead."""
    assert census.LOOK == scheduled_rotation.RETRY


async def test_a_database_that_is_down(tmp_path: Path) -> None:
    """Before the first count there is nothing to tell."""
    down = SqlStore(f"sqlite:///{tmp_path}/none/at.all")
    never = Census(down, lambda: NOW)
    with pytest.raises(StoreUnavailable):
        await never.run()
    assert (never.secrets_expiring, never.secrets_expired, never.deliveries_pending) == (None, None, None)
    await down.close()


async def test_all_at_once_or_nothing(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it counts it tells what it counted last, of all three: whoever sees one of them new sees them all."""
    await add(store, ending(DAY))
    counting = Census(store, lambda: NOW)
    seen: list[tuple[int | None, ...]] = []
    real = store.deliveries_pending

    async def pending() -> int:
        seen.append((counting.secrets_expiring, counting.secrets_expired, counting.deliveries_pending))
        return await real()

    monkeypatch.setattr(store, "deliveries_pending", pending)
    await counting.run()
    assert seen == [(None, None, None)]
    assert (counting.secrets_expiring, counting.secrets_expired, counting.deliveries_pending) == (1, 0, 0)


@pytest.mark.slow
def test_as_time_goes_by(tmp_path: Path) -> None:
    """A service that starts when its secrets are new, near their end, and over, says so on its metrics port: of the
    administrator's, and of an account's that it made."""
    seen = []
    for days in (0, 84, 91):
        service = Installation(tmp_path)
        service.clock.advance(timedelta(days=days))
        with service:
            if not days:
                service.account("user")
            until(lambda at=service: Scrape.of(at).get("artstore_secrets_expired") is not None, 30, "a count")
            scrape = Scrape.of(service)
            assert scrape.value("artstore_secret_deliveries_pending") == 0
            seen.append((scrape.value("artstore_secrets_expiring_7_days"), scrape.value("artstore_secrets_expired")))
    assert seen == [(0, 0), (2, 0), (0, 2)]
