"""The epoch: what makes every token of an account void at once, by a rotation or by too many revocations."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import insert

from artstore_grpc.records import EventKind
from artstore_grpc.store import tables
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.tokens import MAX_REVOCATIONS
from tests.api.callers import Api
from tests.api.conftest import first_account
from tests.api.doors import refused
from tests.api.forgery import parts
from tests.installation import Account, Installation


def apart(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs work on the store in a loop of its own: thousands of rows would hold up the service's."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def rotate(api: Api, id: str, *, overlap: timedelta | None = timedelta(0), **fields: Any) -> pb.RotateSecretResponse:
    request = pb.RotateSecretRequest(id=id, revoke_tokens=True, **fields)
    if overlap is not None:
        request.overlap.CopyFrom(Duration(seconds=int(overlap.total_seconds())))
    response: pb.RotateSecretResponse = api.door.call("RotateSecret", request, api.authorization)
    return response


def with_secret(account: Account, secret: str) -> Account:
    return Account(account.id, account.client_id, secret, account.message)


async def rows(service: Installation, kind: EventKind) -> list[Any]:
    store = SqlStore(service.settings.store_url)
    found = await store.ledger(0, 1000)
    await store.close()
    return [row for row in found if row.kind == kind]


def test_a_rotation_that_revokes(admin: Api, service: Installation) -> None:
    """Over every door: tokens of before are refused at introspection and as bearers at once, those of after work."""
    auditor = admin.account("auditor")
    before, bearer = admin.token(auditor), admin.bearer(auditor)
    assert bearer.list(page_size=1)
    auditor = with_secret(auditor, rotate(admin, auditor.id).client_secret)
    known = first_account(service)
    assert not admin.introspect(known, before).active
    with refused("UNAUTHENTICATED", "INVALID_TOKEN"):
        bearer.list(page_size=1)
    after = admin.token(auditor)
    assert parts(after)[1]["epoch"] == parts(before)[1]["epoch"] + 1
    assert admin.introspect(known, after).active
    assert admin.bearer(auditor).list(page_size=1)


def test_by_its_own_secret(admin: Api, service: Installation) -> None:
    """A service may make its own tokens void with its secret; others' tokens stay."""
    account, other = admin.account(), admin.account()
    token, others = admin.token(account), admin.token(other)
    assert rotate(admin.basic(account), account.id).client_secret
    known = first_account(service)
    assert not admin.introspect(known, token).active
    assert admin.introspect(known, others).active


@pytest.mark.parametrize("overlap", [None, timedelta(seconds=1), timedelta(hours=24)])
def test_only_without_an_overlap(admin: Api, service: Installation, overlap: timedelta | None) -> None:
    """The old secret would only get new tokens; nothing is rotated, and the tokens live on."""
    account = admin.account()
    token = admin.token(account)
    with refused("INVALID_ARGUMENT", field="revoke_tokens"):
        rotate(admin, account.id, overlap=overlap)
    assert admin.introspect(first_account(service), token).active


def test_without_it_tokens_live_on(admin: Api, service: Installation) -> None:
    """An overlap of 0 alone ends secrets, not tokens."""
    account = admin.account()
    token = admin.token(account)
    admin.rotate(account.id, overlap=timedelta(0))
    assert admin.introspect(first_account(service), token).active


def test_a_retry_raises_it_once(root: Api, alone: Installation) -> None:
    """The same request_id is one rotation and one epoch; the row tells the epoch, one that revoked nothing doesn't."""
    account = root.account()
    request_id = str(uuid4())
    first, again = (rotate(root, account.id, request_id=request_id) for _ in range(2))
    assert first == again
    root.rotate(account.id, overlap=timedelta(0))
    told = [row.parsed().get("epoch") for row in apart(rows(alone, EventKind.SECRET_ROTATED))]
    assert told == [1, None]


async def revoked_before(service: Installation, account_id: str, count: int, *, expired: bool = False) -> None:
    """So many revocations of an account, as if they had been made one by one."""
    at = service.clock() + timedelta(minutes=-1 if expired else 20)
    store = SqlStore(service.settings.store_url)
    values = [{"jti": uuid4().hex, "account_id": account_id, "expire_time": at} for _ in range(count)]
    async with store._database.transaction() as transaction:
        await transaction.execute(insert(tables.revocations), values)
    await store.close()


async def revocations(service: Installation, account_id: str) -> int:
    store = SqlStore(service.settings.store_url)
    found = await store.revocations(service.clock())
    await store.close()
    return sum(each.account_id == account_id for each in found)


def test_the_10001st_revocation(root: Api, alone: Installation) -> None:
    """The 10,000th is a row as any other; the next makes all the account's tokens void, and takes the rows away."""
    account, other = root.account(), root.account()
    known = first_account(alone)
    apart(revoked_before(alone, account.id, MAX_REVOCATIONS - 1))
    apart(revoked_before(alone, account.id, 5, expired=True))
    first, second, third, others = (root.token(each) for each in (account, account, account, other))
    root.revoke(account, first)
    assert apart(revocations(alone, account.id)) == MAX_REVOCATIONS
    assert root.introspect(known, second).active
    root.revoke(account, second)
    assert apart(revocations(alone, account.id)) == 0
    for token in (first, second, third):
        assert not root.introspect(known, token).active
    after = root.token(account)
    assert parts(after)[1]["epoch"] == 1
    assert root.introspect(known, after).active
    assert root.introspect(known, others).active
    (row,) = apart(rows(alone, EventKind.TOKENS_VOIDED))
    assert (row.subject, row.actor) == (account.id, account.client_id)
    told = row.parsed()
    assert (told["client_id"], told["epoch"], told["before"]) == (account.client_id, 1, {"epoch": 0})


def test_a_void_token_makes_no_row(root: Api, alone: Installation) -> None:
    """To revoke what is void already is a success that writes nothing: it can't raise the epoch again."""
    account = root.account()
    token = root.token(account)
    rotate(root, account.id)
    root.revoke(first_account(alone), token)
    assert apart(revocations(alone, account.id)) == 0
    assert not apart(rows(alone, EventKind.TOKEN_REVOKED))


def test_raced_past_the_bound(root: Api, alone: Installation) -> None:
    """Of many that are too many at once one raises the epoch; the others find room, and all their tokens are dead."""
    account = root.account()
    apart(revoked_before(alone, account.id, MAX_REVOCATIONS))
    tokens = [root.token(account) for _ in range(10)]

    with ThreadPoolExecutor(len(tokens)) as pool:
        list(pool.map(lambda token: root.revoke(account, token), tokens))
    assert len(apart(rows(alone, EventKind.TOKENS_VOIDED))) == 1
    known = first_account(alone)
    assert not any(root.introspect(known, token).active for token in tokens)
    assert root.introspect(known, root.token(account)).active
