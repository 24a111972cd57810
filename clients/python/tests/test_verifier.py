"""Tokens seen again, keys that change, and the trust feed: what a verifier remembers, and what ends it at once."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from artstore.identity import (
    Client,
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
from issuer import AUDIENCE, ISSUER, NOW, Hands, Source, claims, pair, public, token

REAL, OTHER = pair(), pair("RS256", 1)
SUBJECT = claims()["sub"]


class Told:
    """A trust feed that hears what a test says, on the test's clock."""

    def __init__(self, client: Client, hands: Hands) -> None:
        self.hands = hands
        self.feed = TrustFeed(client, monotonic=hands.steady)

    def snapshot(self, *keys: Any) -> None:
        listed = [pb.TrustedKey(key=pb.JsonWebKey(**public(key)), state=pb.KEY_STATE_ACTIVE) for key in keys]
        self._hear(snapshot=pb.TrustSnapshot(keys=listed, last=True))
        self.heartbeat()

    def revoked(self, jti: str) -> None:
        self._hear(changes=pb.TrustChanges(revoked_tokens=[pb.RevokedToken(jti=jti, exp=int(NOW) + 1800)]))

    def account(self, **trust: Any) -> None:
        self._hear(changes=pb.TrustChanges(accounts=[pb.AccountTrust(account_id=SUBJECT, **trust)]))

    def key_gone(self, kid: str) -> None:
        gone = pb.TrustedKey(key=pb.JsonWebKey(kid=kid), state=pb.KEY_STATE_REVOKED)
        self._hear(changes=pb.TrustChanges(keys=[gone]))

    def heartbeat(self) -> None:
        self._hear(heartbeat=pb.TrustHeartbeat())

    def _hear(self, **content: Any) -> None:
        self.feed._take(pb.WatchTrustResponse(sequence=1, **content))


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest_asyncio.fixture
async def told(server: Canned, hands: Hands) -> AsyncIterator[Told]:
    async with Client(server.target, client_id="sa_dev_b_00000001", client_secret="s") as client:
        made = Told(client, hands)
        made.snapshot(REAL)
        yield made


def verifier(hands: Hands, source: Source | None = None, **options: Any) -> TokenVerifier:
    keys = KeySet(source or Source(), clock=hands.steady)
    return TokenVerifier(ISSUER, audience=AUDIENCE, keys=keys, clock=hands.wall, steady=hands.steady, **options)


# --- what is remembered ---


def test_a_token_seen_before_is_not_verified_again(hands: Hands) -> None:
    """The very same object comes back, and no signature is looked at."""
    made = verifier(hands)
    sent = token()
    first = made.verify_sync(sent)
    made._claims.verified = None  # type: ignore[assignment,method-assign]
    assert made.verify_sync(sent) is first


def test_what_is_remembered_is_bounded_and_no_token(hands: Hands) -> None:
    """The least recently seen goes; and of a token nothing is kept that it could be sent again by."""
    made = verifier(hands, most_tokens=3)
    sent = [token(jti=f"{number}") for number in range(5)]
    kept = [made.verify_sync(each) for each in sent[:3]]
    assert made.verify_sync(sent[0]) is kept[0]
    made.verify_sync(sent[3])
    assert made.remembered == 3
    assert made.verify_sync(sent[0]) is kept[0], "it was seen since"
    assert made.verify_sync(sent[1]) is not kept[1], "it had to go"
    signature = sent[0].rpartition(".")[2]
    held = [each for entry in made._tokens._entries.values() for each in gc.get_referents(entry, entry.verified)]
    assert held
    assert signature not in repr(held)
    assert all(isinstance(digest, bytes) and len(digest) == 32 for digest in made._tokens._entries)


def test_refusals_are_not_remembered(hands: Hands) -> None:
    """Nonsense fills nothing, and what is refused for now is not refused for ever."""
    made = verifier(hands)
    early = token(iat=int(NOW) + 60, nbf=int(NOW) + 60)
    for sent in (early, token(aud="x"), token(OTHER), "nonsense"):
        with pytest.raises(TokenRefused):
            made.verify_sync(sent)
    assert made.remembered == 0
    hands.advance(60)
    assert made.verify_sync(early)


def test_from_many_threads_at_once(hands: Hands) -> None:
    """Few places and many tokens: nobody gets another's caller."""
    made = verifier(hands, most_tokens=2)
    sent = [token(client_id=f"client {number}") for number in range(6)]
    wrong: list[Any] = []

    def work() -> None:
        for number in range(300):
            at = number % len(sent)
            try:
                caller = made.verify_sync(sent[at])
            except Exception as error:
                wrong.append(error)
            else:
                if caller.client_id != f"client {at}":
                    wrong.append(caller)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong
    assert made.remembered <= 2


# --- keys that change ---


def test_a_key_that_is_gone_takes_its_tokens_along(hands: Hands) -> None:
    """With the next set its tokens are refused and forgotten; others' are neither."""
    source = Source(REAL, OTHER)
    made = verifier(hands, source)
    gone, stays = token(REAL), token(OTHER)
    kept = made.verify_sync(stays)
    caller = made.verify_sync(gone)
    source.brings(OTHER)
    hands.advance(301)
    with pytest.raises(UnknownKey, match="Get a new token"):
        made.verify_sync(gone)
    with pytest.raises(UnknownKey):
        made.recheck(caller)
    assert made.remembered == 1
    assert made.verify_sync(stays) is kept


def test_a_key_of_the_same_kid_is_another_key(hands: Hands) -> None:
    """What the old one signed is not taken for the new one's."""
    source = Source(REAL)
    made = verifier(hands, source)
    sent = token()
    made.verify_sync(sent)
    source.answer = {"keys": [public(OTHER, kid=REAL.kid)]}
    hands.advance(301)
    with pytest.raises(TokenRefused):
        made.verify_sync(sent)
    assert made.verify_sync(token(OTHER, header={"kid": REAL.kid}))


def test_tokens_stay_known_over_a_refresh(hands: Hands) -> None:
    """The same keys again: nothing is verified again."""
    source = Source()
    made = verifier(hands, source)
    sent = token()
    first = made.verify_sync(sent)
    hands.advance(301)
    assert made.verify_sync(sent) is not None
    again = made.verify_sync(sent)
    assert again == first
    assert source.fetched == 2


def test_an_outage_is_not_noticed_until_the_bound(hands: Hands) -> None:
    """While the key set can't be had, its tokens are accepted for the stated time, known or new; then none is."""
    source = Source()
    made = verifier(hands, source)
    seen = token(exp=int(NOW) + 10**4)
    made.verify_sync(seen)
    source.fails()
    hands.advance(301)
    assert made.verify_sync(seen)
    assert made.verify_sync(token(exp=int(NOW) + 10**4))
    hands.advance(1800)
    for each in (seen, token(exp=int(NOW) + 10**4)):
        with pytest.raises(KeysUnavailable, match="network is down"):
            made.verify_sync(each)
    source.brings(REAL)
    hands.advance(31)
    assert made.verify_sync(seen)


# --- the feed ---


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
