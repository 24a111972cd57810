"""Tokens seen again, and keys that change: what a verifier remembers, and what ends it at once."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from artstore.identity import (
    KeysUnavailable,
    TokenRefused,
    UnknownKey,
)
from issuer import NOW, Hands, Source, public, token
from verifying import OTHER, REAL, verifier


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
