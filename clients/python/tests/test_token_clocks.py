"""Tokens and clocks that are wrong: named where they refuse, and reviving nothing."""

from __future__ import annotations

import pytest
from artstore.identity import (
    ClocksDiffer,
    TokenExpired,
    WrongIssuer,
)
from issuer import (
    NOW,
    Hands,
    token,
)
from verifying import verifier


def test_the_leeway_of_exp_is_small() -> None:
    """A token is accepted until 5 s after its `exp` and no longer, seen first or seen before."""
    hands = Hands()
    made = verifier(hands)
    seen, unseen = token(exp=int(NOW) + 10), token(exp=int(NOW) + 10)
    made.verify_sync(seen)
    hands.advance(14.9)
    assert made.verify_sync(seen)
    assert made.verify_sync(unseen)
    hands.advance(0.1)
    for each in (seen, unseen, token(exp=int(NOW) + 10)):
        with pytest.raises(TokenExpired, match="get a new token"):
            made.verify_sync(each)
    assert made.remembered == 0, "what expired is forgotten when it is seen"


def test_a_clock_that_is_behind_is_named() -> None:
    """Ten minutes behind the issuer: the exception says that clocks differ, and by how much."""
    hands = Hands()
    hands.step(-600)
    with pytest.raises(ClocksDiffer, match=r"600 s ahead of this machine's clock.*NTP"):
        verifier(hands).verify_sync(token())


def test_a_clock_that_is_behind_revives_nothing() -> None:
    """Once a token from the future has shown that the clock is behind, what its issuer takes for expired is expired."""
    hands = Hands()
    hands.step(-600)
    made = verifier(hands)
    with pytest.raises(ClocksDiffer):
        made.verify_sync(token())
    with pytest.raises(ClocksDiffer, match="behind what it or the issuer's tokens have shown"):
        made.verify_sync(token(iat=int(NOW) - 1900, nbf=int(NOW) - 1900, exp=int(NOW) - 100))


def test_a_clock_that_is_fast_is_named() -> None:
    """Ten minutes fast: a token of ten minutes ago is refused, and the exception says what it may be."""
    hands = Hands()
    hands.step(600)
    with pytest.raises(TokenExpired, match="this machine's clock is fast"):
        verifier(hands).verify_sync(token(exp=int(NOW) + 300))


@pytest.mark.parametrize("seen", [True, False])
def test_a_clock_that_goes_back_revives_nothing(seen: bool) -> None:
    """A token that has expired stays so when the clock is set ten minutes back; what is live by both is live."""
    hands = Hands()
    made = verifier(hands)
    old, live = token(exp=int(NOW) + 60), token(iat=int(NOW) - 700, nbf=int(NOW) - 700)
    made.verify_sync(live)
    if seen:
        made.verify_sync(old)
    hands.advance(120)
    hands.step(-600)
    with pytest.raises(ClocksDiffer, match="set the clock"):
        made.verify_sync(old)
    assert made.verify_sync(live)


def test_a_clock_that_was_fast_is_believed_again() -> None:
    """Set back for good, it counts after an hour: the machine need not be restarted."""
    hands = Hands()
    hands.step(86_400)
    made = verifier(hands)
    hands.step(-86_400)
    with pytest.raises(ClocksDiffer):
        made.verify_sync(token())
    hands.advance(3601)
    later = int(NOW) + 3601
    assert made.verify_sync(token(iat=later, nbf=later, exp=later + 1800))


def test_one_wrong_issuer_clock_voids_no_tokens() -> None:
    """A replica whose clock is a year ahead has its own tokens refused, and no others."""
    made = verifier(Hands())
    with pytest.raises(ClocksDiffer):
        made.verify_sync(token(iat=int(NOW) + 10**7, nbf=int(NOW) + 10**7, exp=int(NOW) + 2 * 10**7))
    assert made.verify_sync(token())


def test_another_issuers_clock_says_nothing() -> None:
    """Time is learnt from the trusted issuer's tokens only."""
    made = verifier(Hands())
    with pytest.raises((ClocksDiffer, WrongIssuer)):
        made.verify_sync(token(iss="https://other.test", iat=int(NOW) + 3000))
    assert made.verify_sync(token())
