"""Model objects to store, each different where no argument says otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

from artstore_grpc.model import (
    Account,
    AccountQuery,
    Comparison,
    KeyState,
    Replay,
    Revocation,
    Role,
    Secret,
    SigningKey,
)
from artstore_grpc.records import Actor, Event, EventKind
from artstore_grpc.store.sql import SqlStore

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DAY = timedelta(days=1)

_numbers = count(1)


def secret(**changes: Any) -> Secret:
    values = {"id": uuid4().hex, "hash": "$2b$04$hash", "create_time": NOW, "expire_time": NOW + 90 * DAY}
    return Secret(**(values | changes))


def account(**changes: Any) -> Account:
    number = next(_numbers)
    values: dict[str, Any] = {
        "id": str(uuid4()),
        "client_id": f"sa_dev_account_{number:08x}",
        "name": f"account {number}",
        "role": Role.USER,
        "create_time": NOW + timedelta(microseconds=number),
        "update_time": NOW + timedelta(microseconds=number),
    }
    return Account(**(values | changes))


def event(subject: str = "subject", **changes: Any) -> Event:
    """`actor` is a name."""
    values = {"time": NOW, "actor": "tester", "kind": EventKind.ACCOUNT_UPDATED, "subject": subject, "detail": {}}
    values |= changes
    return Event(**(values | {"actor": Actor(values["actor"])}))


def replay(**changes: Any) -> Replay:
    values = {"key": uuid4().bytes, "digest": b"digest", "account_id": "a", "create_time": NOW, "sealed": b"sealed"}
    return Replay(**(values | changes))


def revocation(**changes: Any) -> Revocation:
    return Revocation(**({"jti": uuid4().hex, "account_id": "a", "expire_time": NOW + DAY} | changes))


def signing_key(**changes: Any) -> SigningKey:
    values = {
        "kid": uuid4().hex,
        "algorithm": "RS256",
        "public_jwk": {"kty": "RSA", "e": "AQAB"},
        "sealed": b"\x00sealed",
        "state": KeyState.ACTIVE,
        "create_time": NOW,
        "activate_time": None,
    }
    return SigningKey(**(values | changes))


async def add(store: SqlStore, *accounts: Account) -> None:
    async with store.unit() as unit:
        for one in accounts:
            await unit.add_account(one)


async def save(store: SqlStore, changed: Account) -> None:
    async with store.unit() as unit:
        assert await unit.account(changed.id)
        await unit.save_account(changed)


async def names(
    store: SqlStore, *comparisons: Comparison, show_deleted: bool = False, now: datetime = NOW
) -> list[str]:
    found = await store.accounts(AccountQuery(100, comparisons, show_deleted), now)
    return [one.name for one in found]
