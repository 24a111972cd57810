"""WatchTrust over real sockets: who may follow, what they are told and when it ends."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import pytest
from artstore.identity.v1 import key_service_pb2 as keys_pb
from artstore.identity.v1 import key_service_pb2_grpc
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb
from joserfc.jws import extract_compact

from tests.installation import Account, Installation, refusal
from tests.processes.service import until
from tests.trust.stand import (
    SECONDS,
    Watch,
    claims_of,
    forget_snapshot,
    revoke,
    slow_reader,
    token_of,
    watches_of,
)


def test_a_snapshot_then_changes_then_heartbeats(service: Installation, user: Account) -> None:
    """First the keys and what is refused already; then each change, with its `jti` in plain text; a heartbeat a second
    with the ledger's head."""
    dead, other = token_of(service, user), service.account("user")
    revoke(service, user, dead)
    service.accounts.SuspendServiceAccount(
        accounts_pb.SuspendServiceAccountRequest(id=other.id), metadata=service.bearer()
    )
    watch = Watch(service, token_of(service, user))
    chunks = [watch.next() for _ in range(3)]
    snapshots = [chunk.snapshot for chunk in chunks]
    assert [chunk.last for chunk in snapshots] == [False, False, True]
    keys = service.tokens.GetJsonWebKeySet(pb.GetJsonWebKeySetRequest()).keys
    assert {each.key.kid for each in snapshots[0].keys} == {key.kid for key in keys}
    assert [each.jti for each in snapshots[1].revoked_tokens] == [claims_of(dead)["jti"]]
    assert [(each.account_id, each.state) for each in snapshots[2].accounts] == [
        (other.id, accounts_pb.STATE_SUSPENDED)
    ]
    second = token_of(service, user)
    revoke(service, user, second)
    changes = watch.until("changes")
    claims = claims_of(second)
    assert list(changes.changes.revoked_tokens) == [pb.RevokedToken(jti=claims["jti"], exp=claims["exp"])]
    assert changes.sequence > chunks[0].sequence
    began, beats, waits = time.monotonic(), [], []
    for _ in range(5):
        beats.append(watch.until("heartbeat"))
        waits.append(time.monotonic() - began)
        began += waits[-1]
    assert median(waits) < 1.5, "a busy machine may hold up one, not most of them"
    assert beats[-1].sequence == changes.sequence
    assert beats[-1].hash == changes.hash
    watch.close()


def test_who_was_away_gets_what_they_missed(service: Installation, user: Account) -> None:
    """From a row on there is no snapshot, and every change since that row exactly once."""
    watch = Watch(service, token_of(service, user))
    place = watch.until("heartbeat")
    watch.close()
    dead = [token_of(service, user) for _ in range(5)]
    for token in dead:
        revoke(service, user, token)
    again = Watch(service, token_of(service, user), place.sequence, place.hash)
    missed = again.next()
    assert [each.jti for each in missed.changes.revoked_tokens] == [claims_of(token)["jti"] for token in dead]
    assert again.next().WhichOneof("content") == "heartbeat"
    again.close()


@pytest.mark.parametrize("place", ["future", "another ledger"])
def test_a_sequence_that_is_not_ours(service: Installation, user: Account, place: str) -> None:
    """A sequence from the future, or a row of another ledger, is OUT_OF_RANGE; then a fresh snapshot is to be had."""
    watch = Watch(service, token_of(service, user))
    now = watch.until("heartbeat")
    after = (now.sequence + 5, b"") if place == "future" else (now.sequence, bytes(32))
    refused = Watch(service, token_of(service, user), *after)
    assert refusal(refused.next) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_UNKNOWN")
    assert Watch(service, token_of(service, user)).next().snapshot.keys
    watch.close()


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.WatchTrustRequest(after_sequence=-1), "after_sequence"),
        (pb.WatchTrustRequest(after_sequence=1, after_hash=b"x"), "after_hash"),
    ],
)
def test_malformed(service: Installation, request_: pb.WatchTrustRequest, field: str) -> None:
    """A negative sequence and a hash of another length are malformed."""
    stream: Any = service.tokens.WatchTrust(request_, metadata=service.bearer())
    assert refusal(lambda: next(stream)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


def test_the_stream_ends_with_its_token(service: Installation, user: Account) -> None:
    """When the token expires; UNAUTHENTICATED has the client come back with a new one."""
    watch = Watch(service, token_of(service, user))
    watch.next()
    service.clock.advance(timedelta(minutes=31))
    assert refusal(watch.rest) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_ENDED")


@pytest.mark.parametrize("how", ["revoked", "suspended", "deleted"])
def test_the_stream_ends_when_its_token_is_refused(service: Installation, user: Account, how: str) -> None:
    """A revoked token, or one of a suspended or deleted account, follows nothing any more."""
    token = token_of(service, user)
    watch = Watch(service, token)
    watch.next()
    if how == "revoked":
        revoke(service, user, token)
    elif how == "suspended":
        request = accounts_pb.SuspendServiceAccountRequest(id=user.id)
        service.accounts.SuspendServiceAccount(request, metadata=service.bearer())
    else:
        service.accounts.DeleteServiceAccount(
            accounts_pb.DeleteServiceAccountRequest(id=user.id), metadata=service.bearer()
        )
    assert refusal(watch.rest) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_ENDED")


def test_streams_are_bounded(service: Installation, user: Account) -> None:
    """One account gets a fourth of the streams, all together get `max_streams`; the next one is RESOURCE_EXHAUSTED, and
    one that ends makes room. Calls go on."""
    mine = [Watch(service, token_of(service, user)) for _ in range(2)]
    for watch in mine:
        watch.next()
    third = Watch(service, token_of(service, user))
    assert refusal(third.next) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    others = [Watch(service, token_of(service, service.account("user"))) for _ in range(6)]
    for watch in others:
        watch.next()
    one_too_many = Watch(service, token_of(service, service.account("user")))
    assert refusal(one_too_many.next) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    others[0].close()
    deadline = time.monotonic() + SECONDS
    while True:
        again = Watch(service, token_of(service, service.account("user")))
        with contextlib.suppress(grpc.RpcError):
            assert again.next()
            break
        assert time.monotonic() < deadline
    for watch in (*mine, *others, again):
        watch.close()


def test_a_stop_ends_streams_at_once(tmp_path: Path) -> None:
    """An open stream doesn't hold up a drain; UNAVAILABLE sends its client to another server."""
    service = Installation(tmp_path, drain_grace=timedelta(seconds=20))
    with service:
        user = service.account("user")
        channel = grpc.insecure_channel(str(service.started.grpc_address))
        metadata = (("authorization", f"Bearer {token_of(service, user)}"),)
        call: Any = channel.unary_stream("/artstore.identity.v1.TokenService/WatchTrust")
        stream = call(b"", metadata=metadata, timeout=30)
        next(stream)
        started = time.monotonic()
    assert time.monotonic() - started < 15
    assert refusal(lambda: list(stream)) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
    channel.close()


def test_a_stream_is_one_log_line(service: Installation, user: Account) -> None:
    """As every call, when it ends; that its caller went away is no error."""
    watch = Watch(service, token_of(service, user))
    watch.next()
    watch.close()
    deadline = time.monotonic() + SECONDS
    lines: list[dict[str, Any]] = []
    while not lines and time.monotonic() < deadline:
        told = [json.loads(line) for line in service.log.getvalue().splitlines()]
        lines = [line for line in told if str(line.get("method")).endswith("/WatchTrust")]
    assert [(line["code"], line["client_id"]) for line in lines] == [("OK", user.client_id)]


def test_a_slow_reader_costs_one_message(service: Installation, user: Account) -> None:
    """While a reader takes nothing the others are told of everything in time; it keeps no snapshot alive, counts as a
    stream until it goes, and is told to start over when it reads on."""
    trust = watches_of(service).trust
    channel, stalled = slow_reader(service, token_of(service, user))
    quick = Watch(service, token_of(service, service.account("user")))
    while not quick.next().snapshot.last:
        pass
    token = token_of(service, user)
    started = time.monotonic()
    revoke(service, user, token)
    assert [each.jti for each in quick.until("changes").changes.revoked_tokens] == [claims_of(token)["jti"]]
    assert time.monotonic() - started < 10
    assert watches_of(service).count == 2

    for _ in range(2):
        service.run(forget_snapshot(trust))
        fresh = Watch(service, token_of(service, service.account("user")))
        while not fresh.next().snapshot.last:
            pass
        fresh.close()
    assert refusal(lambda: list(stalled)) == (grpc.StatusCode.OUT_OF_RANGE, "FELL_BEHIND")
    quick.close()
    channel.close()


def test_what_can_not_be_read_is_an_outage(service: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw (a table that is being restored) counts as an outage, and is tried again now and
    then, not at once for ever."""
    asked = 0

    async def broken() -> Any:
        nonlocal asked
        asked += 1
        raise RuntimeError("no such table")

    replica = watches_of(service)._replica
    with monkeypatch.context() as patched:
        patched.setattr(replica._store, "head", broken)
        time.sleep(3)
        tried = asked
        until(lambda: replica.outage, SECONDS, "an outage")
        assert tried < 10
    until(lambda: not replica.outage, SECONDS, "no outage")


def test_a_stream_ends_with_the_key_of_its_token(service: Installation, user: Account) -> None:
    """RevokeSigningKey is the emergency: a token that the key signed follows nothing any more."""
    token = token_of(service, user)
    watch = Watch(service, token)
    watch.next()
    kid = extract_compact(token.encode()).headers()["kid"]
    keys: Any = key_service_pb2_grpc.KeyServiceStub(service.channel)
    keys.RevokeSigningKey(keys_pb.RevokeSigningKeyRequest(kid=kid), metadata=service.bearer())
    assert refusal(watch.rest) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_ENDED")


def test_a_key_that_is_revoked_under_a_slow_reader(service: Installation, user: Account) -> None:
    """A reader that has not taken in its whole snapshot yet is no exception."""
    token = token_of(service, user)
    channel, stalled = slow_reader(service, token)
    next(stalled)
    kid = extract_compact(token.encode()).headers()["kid"]
    keys: Any = key_service_pb2_grpc.KeyServiceStub(service.channel)
    keys.RevokeSigningKey(keys_pb.RevokeSigningKeyRequest(kid=kid), metadata=service.bearer())
    assert refusal(lambda: list(stalled)) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_ENDED")
    channel.close()
