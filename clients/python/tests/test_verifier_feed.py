"""A verifier that holds the trust feed: what it says counts at once; silent, it is treated as the service chose."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest
from artstore.identity import (
    Client,
    Credentials,
    CredentialsError,
    KeySet,
    KeysUnavailable,
    SyncTrustFeed,
    TokenExpired,
    TokenRefused,
    TokenRevoked,
    TokenVerifier,
    TrustFeed,
    TrustStale,
    UnknownKey,
)
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb
from canned import Canned, Refused
from issuer import AUDIENCE, ISSUER, NOW, Hands, Source, token
from verifying import OTHER, REAL, Told, verifier


async def test_a_revocation_takes_effect_at_once(told: Told, hands: Hands) -> None:
    """Of a token that was seen before, of one that wasn't, and of a stream that has begun."""
    made = verifier(hands, trust=told.feed)
    seen, unseen = token(jti="one"), token(jti="one", scope="")
    caller = await made.verify(seen)
    made.recheck(caller)
    told.revoked("one")
    for each in (seen, unseen):
        with pytest.raises(TokenRevoked, match="get a new token"):
            await made.verify(each)
    with pytest.raises(TokenRevoked):
        made.recheck(caller)
    assert made.remembered == 0
    assert await made.verify(token())


@pytest.mark.parametrize("trust", [{"state": accounts_pb.STATE_SUSPENDED}, {"state": accounts_pb.STATE_DELETED}])
async def test_an_account_that_is_suspended_or_deleted(told: Told, hands: Hands, trust: dict[str, Any]) -> None:
    """All its tokens are refused; when it is active again, they are good again."""
    made = verifier(hands, trust=told.feed)
    sent = token()
    await made.verify(sent)
    told.account(**trust)
    with pytest.raises(TokenRevoked):
        await made.verify(sent)
    told.account(state=accounts_pb.STATE_ACTIVE)
    assert await made.verify(sent)


async def test_an_epoch_voids_older_tokens(told: Told, hands: Hands) -> None:
    """Those with a lower one, and no others."""
    made = verifier(hands, trust=told.feed)
    old, new = token(epoch=1), token(epoch=2)
    await made.verify(old)
    told.account(state=accounts_pb.STATE_ACTIVE, epoch=2)
    with pytest.raises(TokenRevoked):
        await made.verify(old)
    assert await made.verify(new)


async def test_the_feeds_keys_count(told: Told, hands: Hands) -> None:
    """While it is current: a key that it revokes is gone whatever a key set says, a new one is known without asking."""
    source = Source(REAL, OTHER)
    made = verifier(hands, source, trust=told.feed)
    sent = token()
    caller = await made.verify(sent)
    assert source.fetched == 0
    with pytest.raises(UnknownKey):
        await made.verify(token(OTHER))
    told.snapshot(REAL, OTHER)
    assert await made.verify(token(OTHER))
    told.key_gone(REAL.kid)
    with pytest.raises(UnknownKey):
        await made.verify(sent)
    with pytest.raises(UnknownKey):
        made.recheck(caller)
    assert source.fetched == 0


async def test_a_key_that_the_feed_revoked_stays_so_when_it_falls_silent(told: Told, hands: Hands) -> None:
    """A key set from before must not bring it back; one that is fetched then may say what it says."""
    source = Source(REAL, OTHER)
    made = verifier(hands, source, trust=told.feed, on_stale="accept")
    hands.advance(4)
    assert await made.verify(token())  # the key set is fetched
    told.snapshot(OTHER)
    told.heartbeat()
    with pytest.raises(UnknownKey):
        await made.verify(token())
    hands.advance(4)
    source.brings(OTHER)
    with pytest.raises(UnknownKey):
        await made.verify(token())
    assert source.fetched <= 3, "once as the set was too old, once for the kid"
    assert await made.verify(token(OTHER))


async def test_a_key_revoked_between_two_silences(told: Told, hands: Hands) -> None:
    """A key set of the first silence is no news in the second one, although nobody asked for anything in between."""
    source = Source(REAL, OTHER)
    made = verifier(hands, source, trust=told.feed, on_stale="accept")
    sent = token()
    hands.advance(4)
    assert await made.verify(sent)
    told.snapshot(OTHER)
    source.brings(OTHER)
    hands.advance(4)
    with pytest.raises(UnknownKey):
        await made.verify(sent)


def test_two_verifiers_may_share_a_key_set(hands: Hands) -> None:
    """Each forgets the tokens of a key that is gone."""
    source = Source(REAL, OTHER)
    keys = KeySet(source, clock=hands.steady)
    both = [
        TokenVerifier(ISSUER, audience=AUDIENCE, keys=keys, clock=hands.wall, steady=hands.steady) for _ in range(2)
    ]
    for each in both:
        each.verify_sync(token())
    source.brings(OTHER)
    hands.advance(301)
    both[0].verify_sync(token(OTHER))
    assert [each.remembered for each in both] == [1, 0]


def test_a_feed_in_a_thread_that_reaches_nobody(hands: Hands) -> None:
    """It is there after a while all the same, silent, and ends at once when it is left."""
    client = Client("127.0.0.1:1", client_id="c", client_secret="s")
    with SyncTrustFeed(client, ready_within=timedelta(seconds=0.1)) as feed:
        assert feed.stale
        assert verifier(hands, trust=feed, on_stale="accept").verify_sync(token())
        with pytest.raises(TrustStale, match="does not say"):
            verifier(hands, trust=feed).verify_sync(token())


async def test_a_silent_feed_and_refuse(told: Told, hands: Hands) -> None:
    """After 3 s nothing is accepted, known or new, streams included; with the next heartbeat all is well."""
    made = verifier(hands, trust=told.feed, on_stale="refuse")
    sent = token()
    caller = await made.verify(sent)
    hands.advance(3)
    assert await made.verify(sent)
    hands.advance(0.1)
    for each in (sent, token()):
        with pytest.raises(TrustStale, match="silent"):
            await made.verify(each)
    with pytest.raises(TrustStale):
        made.recheck(caller)
    told.heartbeat()
    assert await made.verify(sent)


async def test_a_silent_feed_and_accept(told: Told, hands: Hands, server: Canned) -> None:
    """What was not known to be revoked is accepted; what was known is refused still. Nobody is asked."""
    made = verifier(hands, trust=told.feed, on_stale="accept")
    told.revoked("bad")
    sent = token()
    await made.verify(sent)
    hands.advance(60)
    assert await made.verify(sent)
    assert await made.verify(token())
    with pytest.raises(TokenRevoked):
        await made.verify(token(jti="bad"))
    assert not server.named("IntrospectToken")


async def test_a_silent_feed_and_introspect(told: Told, hands: Hands, server: Canned) -> None:
    """Each token is asked about, once a second at most; the service's no is a no, whatever was known of it."""
    made = verifier(hands, trust=told.feed)
    sent = token()
    await made.verify(sent)
    assert not server.named("IntrospectToken")
    server.answers["IntrospectToken"] = lambda _: pb.IntrospectTokenResponse(active=True)
    hands.advance(4)
    for _ in range(5):
        assert await made.verify(sent)
    assert len(server.named("IntrospectToken")) == 1
    hands.advance(1)
    server.answers["IntrospectToken"] = lambda _: pb.IntrospectTokenResponse(active=False)
    with pytest.raises(TokenRevoked, match="not active"):
        await made.verify(sent)
    with pytest.raises(TokenRevoked):
        await made.verify(token())
    server.answers["IntrospectToken"] = lambda _: pb.IntrospectTokenResponse(active=True)
    with pytest.raises(TokenRefused):
        await made.verify(token(aud="x"))


async def test_a_feed_that_speaks_while_the_service_is_asked(told: Told, hands: Hands, server: Canned) -> None:
    """What it revokes in the meantime counts for more than an answer from before."""
    made = verifier(hands, trust=told.feed)
    sent = token(jti="one")

    def revoked_meanwhile(_: Any) -> pb.IntrospectTokenResponse:
        told.revoked("one")
        return pb.IntrospectTokenResponse(active=True)

    server.answers["IntrospectToken"] = revoked_meanwhile
    hands.advance(4)
    with pytest.raises(TokenRevoked, match="It was revoked"):
        await made.verify(sent)
    assert len(server.named("IntrospectToken")) == 1


async def test_a_silent_feed_and_nobody_to_ask(told: Told, hands: Hands, server: Canned) -> None:
    """Refused, since nobody can say; told apart from a token that is bad."""

    def down(_: Any) -> Any:
        raise Refused(grpc.StatusCode.UNAVAILABLE)

    server.answers["IntrospectToken"] = down
    made = verifier(hands, trust=told.feed)
    sent = token()
    await made.verify(sent)
    hands.advance(4)
    with pytest.raises(TrustStale, match="does not say"):
        await made.verify(sent)


async def test_a_feed_that_has_said_nothing_yet(server: Canned, hands: Hands) -> None:
    """Before its first snapshot it is silent: on_stale says what is done, with the keys of a key set."""
    async with Client(server.target) as client:
        feed = TrustFeed(client, monotonic=hands.steady)
        assert await verifier(hands, trust=feed, on_stale="accept").verify(token())
        with pytest.raises(TrustStale):
            await verifier(hands, trust=feed, on_stale="refuse").verify(token())


async def test_threads_must_not_wait_for_their_own_loop(told: Told, hands: Hands) -> None:
    """verify_sync on the feed's loop would wait for ever for an introspection: it says so at once."""
    told.feed.loop = asyncio.get_running_loop()
    made = verifier(hands, trust=told.feed)
    sent = token()
    assert made.verify_sync(sent), "no need to ask"
    hands.advance(4)
    with pytest.raises(RuntimeError, match="would wait for its own event loop"):
        made.verify_sync(sent)


def test_an_expired_stream(hands: Hands) -> None:
    """Its token's time is looked at too."""
    made = verifier(hands)
    caller = made.verify_sync(token(exp=int(NOW) + 60))
    hands.advance(64)
    made.recheck(caller)
    hands.advance(1)
    with pytest.raises(TokenExpired):
        made.recheck(caller)


def test_a_stream_outlives_an_outage(hands: Hands) -> None:
    """That the keys can't be had now says nothing against a token that was good."""
    source = Source()
    made = TokenVerifier(
        ISSUER,
        audience=AUDIENCE,
        keys=KeySet(source, clock=hands.steady, stale_if_error=timedelta(0)),
        clock=hands.wall,
        steady=hands.steady,
    )
    caller = made.verify_sync(token())
    source.fails()
    hands.advance(400)
    made.recheck(caller)
    with pytest.raises(KeysUnavailable):
        made.verify_sync(token())
    made.recheck(caller)


async def test_a_clock_that_leaps_and_comes_back(told: Told, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was revoked stays so: the day that a clock was ahead has not passed."""
    text = token(jti="leaps")
    told.revoked("leaps")
    monkeypatch.setattr("artstore.identity.trust.time.time", lambda: NOW + 86_400)
    hands.advance(120)
    told.heartbeat()
    monkeypatch.undo()
    with pytest.raises(TokenRevoked):
        await verifier(hands, trust=told.feed).verify(text)


async def test_credentials_that_can_not_be_read_for_a_while(server: Canned) -> None:
    """The feed goes on once they can."""

    class Mended:
        asked = 0

        def current(self) -> Credentials:
            self.asked += 1
            if self.asked == 1:
                raise CredentialsError("It is being replaced.")
            return Credentials("sa_dev_b_00000001", "s")

    provider, came = Mended(), asyncio.Event()

    def issued(_: Any) -> pb.IssueTokenResponse:
        came.set()
        return pb.IssueTokenResponse()

    server.answers["IssueToken"] = issued
    async with Client(server.target, credentials=provider) as client, TrustFeed(client) as feed:
        await asyncio.wait_for(came.wait(), 10)
        assert feed.reconnects >= 1
