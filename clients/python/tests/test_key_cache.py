"""When a key set is asked for, and what holds meanwhile: decisions alone, on a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest
from artstore.identity import KeySetError, KeysUnavailable, UnknownKey
from artstore.identity.key_cache import (
    COOL_DOWN_SECONDS,
    DEFAULT_AGE_SECONDS,
    LAST_RETRY_SECONDS,
    MAX_AGE_SECONDS,
    MAX_UNKNOWN,
    MIN_AGE_SECONDS,
    UNKNOWN_SECONDS,
    KeyCache,
    Look,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

STALE = 1800.0
DOWN = KeySetError("down", "UNREACHABLE")


class Key:
    """Stands for a key; the cache looks at none."""

    def __init__(self, kid: str) -> None:
        self.kid = kid


A: Any = Key("a")
B: Any = Key("b")
WAIT, FETCH = Look(), Look(fetch=True)


def filled(*keys: Any, at: float = 0.0, max_age: float | None = 300.0) -> KeyCache:
    cache = KeyCache(lambda: 0.5, STALE)
    cache.look("", at)
    cache.landed(at, at, {key.kid: key for key in keys or (A,)}, max_age)
    return cache


def test_one_request_however_many_wait() -> None:
    """The first asks, the others wait; then all have it."""
    cache = KeyCache(lambda: 0.5, STALE)
    assert cache.look("a", 0) == FETCH
    assert [cache.look("a", 0), cache.look("b", 1), cache.look("a", 2)] == [WAIT] * 3
    cache.landed(0, 2, {"a": A}, 300)
    assert cache.look("a", 2) == Look(A)


def test_it_is_asked_for_anew_before_it_is_too_old() -> None:
    """In the background: whoever comes then does not wait. Before that nobody asks."""
    cache = filled()
    assert cache.look("a", 232) == Look(A)
    assert cache.look("a", 233) == Look(A, fetch=True)
    assert cache.look("a", 234) == Look(A)
    cache.landed(233, 235, {"a": A}, 300)
    assert cache.look("a", 232 + 233) == Look(A)


def test_a_set_that_is_too_old_is_waited_for() -> None:
    """Nobody goes by it while its server may well answer."""
    cache = filled()
    assert cache.look("a", 299.9).key is A
    cache = filled()
    assert cache.look("a", 300) == FETCH


def test_the_set_is_as_old_as_its_request() -> None:
    """A slow answer is no newer for that."""
    cache = KeyCache(lambda: 0.5, STALE)
    cache.look("a", 0)
    cache.landed(0, 50, {"a": A}, 60)
    assert cache.look("a", 59).key is A
    assert filled(max_age=60).look("a", 60) == FETCH


@pytest.mark.parametrize(
    ("said", "kept"),
    [(0, MIN_AGE_SECONDS), (60, 60), (10**9, MAX_AGE_SECONDS), (None, DEFAULT_AGE_SECONDS), (-5, MIN_AGE_SECONDS)],
)
def test_a_servers_word_has_bounds(said: float | None, kept: float) -> None:
    """Neither a request per token, nor a revoked key for a day."""
    assert filled(max_age=said).usable(kept - 0.001, float("-inf"))
    assert not filled(max_age=said).usable(kept, float("-inf"))


def test_an_old_set_holds_while_asking_fails_and_no_longer() -> None:
    """RFC 5861 §4, for half an hour; then nothing is accepted, and the error says why."""
    cache = filled()
    assert cache.look("a", 300) == FETCH
    cache.failed(301, DOWN)
    assert cache.look("a", 301).key is A
    at = 301.0
    while at < 300 + STALE - 1:
        at += LAST_RETRY_SECONDS
        found = cache.look("a", min(at, 300 + STALE - 1))
        assert found == Look(A, fetch=True), "asked again and again, and nobody waits for it"
        cache.failed(min(at, 300 + STALE - 1), DOWN)
    found = cache.look("a", 300 + STALE)
    assert isinstance(found.error, KeysUnavailable)
    assert found.error.__cause__ is DOWN


def test_a_first_failure_is_told_and_tried_again() -> None:
    """With no set at all there is nothing to go by; not every token makes a request all the same."""
    cache = KeyCache(lambda: 0.5, STALE)
    assert cache.look("a", 0) == FETCH
    cache.failed(1, DOWN)
    assert isinstance(cache.look("a", 1.1).error, KeysUnavailable)
    assert cache.look("a", 1.8) == FETCH


def test_retries_become_rare() -> None:
    """Doubled waits, up to half a minute."""
    cache = KeyCache(lambda: 1.0, STALE)
    waits, at = [], 0.0
    assert cache.look("a", at).fetch
    for _ in range(8):
        cache.failed(at, DOWN)
        wait = 0.0
        while not cache.look("a", at + wait).fetch:
            wait += 0.5
        waits.append(wait)
        at += wait
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_an_unknown_kid_is_worth_one_request() -> None:
    """If the key is new, it is found; if it isn't there, that is known for a while, and not asked again."""
    cache = filled()
    assert cache.look("b", 10) == FETCH
    cache.landed(10, 10, {"a": A, "b": B}, 300)
    assert cache.look("b", 10) == Look(B)
    assert isinstance(cache.look("c", 11).error, UnknownKey), "the cool-down is everybody's"
    assert cache.look("c", 10 + COOL_DOWN_SECONDS) == FETCH
    cache.landed(20, 20, {"a": A}, 300)
    for at in (20, 21, 20 + COOL_DOWN_SECONDS, 20 + UNKNOWN_SECONDS - 0.1):
        assert isinstance(cache.look("c", at).error, UnknownKey)
    assert cache.look("c", 20 + UNKNOWN_SECONDS) == FETCH


def test_known_keys_are_not_held_up_by_unknown_ones() -> None:
    """While a request for an invented kid is under way, good tokens are good."""
    cache = filled()
    assert cache.look("x", 10).fetch
    assert cache.look("a", 10) == Look(A)


def test_invented_kids_cost_one_request_per_cool_down() -> None:
    """Thousands of them in a minute: six requests; and they leave nothing behind that grows."""
    cache, fetches = filled(max_age=3600), 0
    for number in range(6000):
        at = number / 100
        if cache.look(f"invented {number}", at).fetch:
            fetches += 1
            cache.landed(at, at, None, 3600)
    assert fetches == 60 / COOL_DOWN_SECONDS
    assert len(cache._unknown) <= MAX_UNKNOWN


def test_an_unknown_kid_while_asking_fails_is_not_refused() -> None:
    """Nobody can say that it is unknown: the caller may try again."""
    cache = filled()
    assert cache.look("b", 10).fetch
    cache.failed(11, DOWN)
    assert isinstance(cache.look("b", 11).error, KeysUnavailable)
    assert cache.look("a", 11).key is A
    assert cache.look("b", 13) == FETCH


def test_a_key_that_is_gone_is_unknown() -> None:
    """Revoked: the next set lacks it."""
    cache = filled(A, B)
    assert cache.look("b", 240).fetch
    cache.landed(240, 240, {"a": A}, 300)
    assert cache.look("b", 241) == FETCH
    cache.landed(241, 241, None, 300)
    assert isinstance(cache.look("b", 242).error, UnknownKey)


def test_not_modified_holds_on() -> None:
    """A set that still holds is as good as a new one."""
    cache = filled()
    cache.look("a", 240)
    cache.landed(240, 240, None, 300)
    assert cache.look("a", 440).key is A


def test_a_set_that_is_too_old_for_its_asker_does_not_count() -> None:
    """What the feed had revoked must not come back by an older set."""
    cache = filled()
    assert cache.look("a", 10, not_before=5) == FETCH
    cache.landed(10, 10, {}, 300)
    assert cache.look("a", 10, not_before=5).key is None


class Life(RuleBasedStateMachine):
    """Any order of looks, answers and failures."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = KeyCache(lambda: 0.5, STALE)
        self.now = 0.0
        self.began: float | None = None
        self.fresh_until = float("-inf")
        self.failed = False

    @rule(seconds=st.floats(0, 700))
    def passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(kid=st.sampled_from("abcd"))
    def looks(self, kid: str) -> None:
        """Never two requests at once; a key is given only while its set may be gone by."""
        found = self.cache.look(kid, self.now)
        assert not (found.fetch and self.began is not None)
        if found.fetch:
            self.began = self.now
        if found.key is not None:
            assert self.cache.keys[kid] is found.key
            assert self.now < self.fresh_until + (STALE if self.failed else 0)
        if found.key is None and found.error is None:
            assert self.began is not None, "who waits, waits for something"

    @precondition(lambda self: self.began is not None)
    @rule(kids=st.sets(st.sampled_from("abc")), age=st.floats(0, 10_000))
    def lands(self, kids: set[str], age: float) -> None:
        keys: Any = {kid: Key(kid) for kid in kids}
        assert self.began is not None
        self.cache.landed(self.began, self.now, keys, age)
        self.fresh_until = self.began + min(max(age, MIN_AGE_SECONDS), MAX_AGE_SECONDS)
        self.began, self.failed = None, False

    @precondition(lambda self: self.began is not None)
    @rule()
    def fails(self) -> None:
        self.cache.failed(self.now, DOWN)
        self.began, self.failed = None, True

    @invariant()
    def calm_is_right(self) -> None:
        """While it is calm, `look` would say the same at once, and ask for nothing."""
        if self.now < self.cache.calm_until:
            assert self.now < self.fresh_until + (STALE if self.failed else 0)
            for kid in list(self.cache.keys):
                assert self.cache.look(kid, self.now) == Look(self.cache.keys[kid])


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
