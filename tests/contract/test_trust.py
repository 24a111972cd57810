"""The contract: WatchTrust, as whoever holds it sees it. Some cases are those of `tests/trust/test_watch.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from artstore.identity import Client, TrustFeed, TrustState
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb

from tests.api.forgery import parts
from tests.contract.api_cases import taken
from tests.contract.stands import SECONDS, Differs, Stand, opened
from tests.installation import Account, refusal
from tests.trust import test_watch
from tests.trust.stand import Watch, claims_of, revoke, settled, token_of, turned

INSIDE = {
    "test_a_stop_ends_streams_at_once": "an installation of its own",
    "test_a_stream_is_one_log_line": "the log",
    "test_a_slow_reader_costs_one_message": "the streams of the process",
    "test_a_key_that_is_revoked_under_a_slow_reader": "the streams of the process",
    "test_what_can_not_be_read_is_an_outage": "the database",
    "test_streams_are_bounded": "a setting; below is what a stranger sees of it",
}
DIFFERENCES = {"test_a_stream_ends_with_the_key_of_its_token": "methods"}
globals().update(taken(test_watch, inside=INSIDE, differences=DIFFERENCES))


@pytest.fixture
def service(kind: str, tmp_path: Path) -> Iterator[Stand]:
    """An authority whose trust is followed, and with which nothing happens but what the case does."""
    settings: dict[str, Any] = {"max_streams": 8} if kind == "real" else {}
    with opened(kind, tmp_path / "service", **settings) as stand:
        if kind == "real":
            settled(stand)  # type: ignore[arg-type]
        yield stand


@pytest.fixture
def user(service: Stand) -> Account:
    return service.account("user")


def suspend(service: Stand, account: Account) -> None:
    request = accounts_pb.SuspendServiceAccountRequest(id=account.id)
    service.accounts.SuspendServiceAccount(request, metadata=service.bearer())


def test_changes_of_accounts(service: Stand, user: Account) -> None:
    """Suspended, active again, deleted: each is told within a second, and who is only created is not told of."""
    watch = Watch(service, service.bearer()[0][1].removeprefix("Bearer "))  # type: ignore[arg-type]
    watch.until("heartbeat")
    service.account("readonly")
    started = time.monotonic()
    suspend(service, user)
    told = [watch.until("changes")]
    assert time.monotonic() - started < 2
    request: Any = accounts_pb.ActivateServiceAccountRequest(id=user.id)
    service.accounts.ActivateServiceAccount(request, metadata=service.bearer())
    told.append(watch.until("changes"))
    request = accounts_pb.DeleteServiceAccountRequest(id=user.id)
    service.accounts.DeleteServiceAccount(request, metadata=service.bearer())
    told.append(watch.until("changes"))
    assert [[(each.account_id, each.state) for each in message.changes.accounts] for message in told] == [
        [(user.id, state)]
        for state in (accounts_pb.STATE_SUSPENDED, accounts_pb.STATE_ACTIVE, accounts_pb.STATE_DELETED)
    ]
    watch.close()


def test_a_raised_epoch(service: Stand, user: Account) -> None:
    """A rotation that revokes tokens tells the account's new epoch, below which its tokens are refused."""
    watch = Watch(service, service.bearer()[0][1].removeprefix("Bearer "))  # type: ignore[arg-type]
    watch.until("heartbeat")
    request = accounts_pb.RotateSecretRequest(id=user.id, revoke_tokens=True)
    request.overlap.SetInParent()
    service.accounts.RotateSecret(request, metadata=service.bearer())
    (told,) = watch.until("changes").changes.accounts
    assert (told.account_id, told.state, told.epoch) == (user.id, accounts_pb.STATE_ACTIVE, 1)
    watch.close()


def test_a_new_key(service: Stand, user: Account) -> None:
    """Is told before or when it signs, and the old one as retired."""
    old = parts(token_of(service, user))[0]["kid"]  # type: ignore[arg-type]
    service.rotate_key()
    watch = Watch(service, token_of(service, user))  # type: ignore[arg-type]
    keys = {each.key.kid: each.state for each in watch.next().snapshot.keys}
    new = parts(token_of(service, user))[0]["kid"]  # type: ignore[arg-type]
    assert (keys[old], keys[new]) == (pb.KEY_STATE_RETIRED, pb.KEY_STATE_ACTIVE)
    watch.close()


def test_a_revoked_key_ends_its_streams(service: Stand, user: Account) -> None:
    """A stream doesn't outlive the key that signed its token; another one is told that the key is gone."""
    token = token_of(service, user)  # type: ignore[arg-type]
    watch = Watch(service, token)  # type: ignore[arg-type]
    watch.until("heartbeat")
    service.revoke_key(parts(token)[0]["kid"])
    assert refusal(watch.rest) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_ENDED")
    again, state = Watch(service, token_of(service, user)), TrustState()  # type: ignore[arg-type]
    while (message := again.next()).WhichOneof("content") != "heartbeat":
        state.apply(message)
    assert parts(token)[0]["kid"] not in state.keys
    again.close()


@pytest.mark.parametrize("audience", ["other", "both"])
def test_tokens_for_others_follow_nothing(service: Stand, audience: str) -> None:
    """A token must be for the issuer or for the default audience, alone."""
    account = service.account("user", audiences=["artstore", "other"])
    asked = ("other",) if audience == "other" else ("artstore", "other")
    token = service.token(account.client_id, account.secret, audience=asked)
    watch = Watch(service, token)  # type: ignore[arg-type]
    assert refusal(watch.next) == (grpc.StatusCode.UNAUTHENTICATED, "WRONG_AUDIENCE")


def test_no_token(service: Stand) -> None:
    """The feed is not public."""
    stream: Any = service.tokens.WatchTrust(pb.WatchTrustRequest(), timeout=SECONDS)
    assert refusal(lambda: next(stream)) == (grpc.StatusCode.UNAUTHENTICATED, "MISSING_TOKEN")


def test_the_next_after_a_snapshot_has_no_gap(service: Stand, user: Account) -> None:
    """What happens between a snapshot and the next message is told, and a stream that goes on from there repeats
    nothing."""
    token, dead = token_of(service, user), token_of(service, user)  # type: ignore[arg-type]
    watch = Watch(service, token)  # type: ignore[arg-type]
    snapshot = watch.next()
    revoke(service, user, dead)  # type: ignore[arg-type]
    told = watch.until("changes")
    assert [each.jti for each in told.changes.revoked_tokens] == [claims_of(dead)["jti"]]
    assert told.sequence > snapshot.sequence
    assert Watch(service, token, told.sequence, told.hash).next().WhichOneof("content") == "heartbeat"  # type: ignore[arg-type]
    watch.close()


async def test_the_clients_own_feed(service: Stand, user: Account) -> None:
    """`TrustFeed` refuses a token within a second of its revocation, and knows that it is fresh."""
    token = token_of(service, user)  # type: ignore[arg-type]
    target = str(service.started.grpc_address)
    async with (
        Client(target, client_id=user.client_id, client_secret=user.secret) as client,
        TrustFeed(client) as feed,
    ):
        await asyncio.wait_for(feed.ready(), SECONDS)
        assert not feed.refuses(claims_of(token))
        await asyncio.to_thread(revoke, service, user, token)
        assert await turned(lambda: feed.refuses(claims_of(token))) < 2
        await turned(lambda: not feed.stale)
        assert feed.staleness < timedelta(seconds=3)


def test_streams_are_bounded_for_each_account(service: Stand, user: Account, differs: Differs) -> None:
    """One account gets a fourth of the streams there may be."""
    differs("streams")
    watches = [Watch(service, token_of(service, user)) for _ in range(3)]  # type: ignore[arg-type]
    for watch in watches[:2]:
        watch.next()
    try:
        assert refusal(watches[2].next) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    finally:
        for watch in watches:
            watch.close()
