"""What the token cache decides, whatever happens in whatever order."""

from __future__ import annotations

import random
from datetime import timedelta

import grpc
import pytest
from artstore.identity import CredentialsError, DeadlineExceeded, InvalidClient, InvalidScope, RateLimited, Unavailable
from artstore.identity.token_cache import (
    LAST_RETRY_SECONDS,
    MAX_ENTRIES,
    REFRESH_FROM,
    REFRESH_TO,
    REFUSED_SECONDS,
    TokenCache,
    Wanted,
    repeated,
    wanted,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

KEY = Wanted()
UNAVAILABLE = Unavailable(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "Down.")
REFUSED = InvalidClient(grpc.StatusCode.UNAUTHENTICATED, "INVALID_CLIENT", "No.")


def limited(seconds: float) -> RateLimited:
    retry = timedelta(seconds=seconds)
    return RateLimited(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "Later.", retry_after=retry)


def cache(at: float = 0.5) -> TokenCache:
    return TokenCache(lambda: at)


def filled(expires_in: float = 1000.0, at: float = 0.5) -> TokenCache:
    """With a token got at 0."""
    made = cache(at)
    assert made.look(KEY, 0.0, 10.0).fetch
    made.succeeded(KEY, 0.0, 0.0, "token", expires_in)
    return made


class Machine(RuleBasedStateMachine):
    """Callers, requests and a clock in any order, against what the cache promises."""

    KEYS = (Wanted(), Wanted("storage.read"), Wanted("", ("a", "b")))

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.cache = TokenCache(random.Random(1).random)
        self.flying: dict[Wanted, float] = {}
        self.ends: dict[str, float] = {}
        self.blamed: set[str] = set()
        self.earliest: dict[Wanted, float] = {}
        self.number = 0

    @rule(key=st.sampled_from(KEYS), patience=st.floats(0, 60))
    def call(self, key: Wanted, patience: float) -> None:
        """A caller: one flight at most, a live token or none, and a reason to raise or an end of waiting."""
        look = self.cache.look(key, self.now, self.now + patience)
        if look.fetch:
            assert key not in self.flying, "two requests for one token"
            assert self.now >= self.earliest.get(key, 0.0), "a request before RetryInfo allows one"
            self.flying[key] = self.now
        if look.token:
            assert self.now < self.ends[look.token], "a token past its life"
            assert look.token not in self.blamed, "a token that was invalidated"
            assert look.error is None
        elif look.error is None:
            assert self.now < look.until <= self.now + patience, "a wait that is over, or longer than the caller's"
            assert key in self.flying or look.until >= self.earliest.get(key, 0.0)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), life=st.floats(0, 2000))
    def succeed(self, data: st.DataObject, life: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.flying)))
        self.number += 1
        token = f"token-{self.number}"
        started = self.flying.pop(key)
        self.ends[token] = started + life
        self.cache.succeeded(key, started, self.now, token, life)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), error=st.sampled_from([UNAVAILABLE, REFUSED, limited(0.5), limited(30), OSError("disk")]))
    def fail(self, data: st.DataObject, error: Exception) -> None:
        key = data.draw(st.sampled_from(sorted(self.flying)))
        del self.flying[key]
        before = self.cache.live(key, self.now)
        self.cache.failed(key, self.now, error)
        if before:
            assert self.cache.look(key, self.now, self.now).token == before, "a failed refresh took the token away"
        told = getattr(error, "retry_after", None)
        self.earliest[key] = self.now + (told.total_seconds() if told else 0.0)

    @rule(seconds=st.floats(0, 900))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def invalidate(self, data: st.DataObject) -> None:
        token = data.draw(st.sampled_from(sorted(self.ends)))
        if self.cache.invalidate(token, self.now):
            self.blamed.add(token)

    @invariant()
    def live_is_what_look_gives(self) -> None:
        for key in self.KEYS:
            if held := self.cache.live(key, self.now):
                assert self.now < self.ends[held]
                assert held not in self.blamed


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("at", [0.0, 0.3, 1.0])
def test_a_refresh_begins_at_two_thirds_to_four_fifths(at: float) -> None:
    """At a random part of the life between; the token serves meanwhile, and one request is begun."""
    made = filled(at=at)
    begins = 1000 * (REFRESH_FROM + (REFRESH_TO - REFRESH_FROM) * at)
    assert not made.look(KEY, begins - 0.001, begins).fetch
    first, second = made.look(KEY, begins + 0.001, 0), made.look(KEY, begins + 0.001, 0)
    assert (first.token, first.fetch, second.token, second.fetch) == ("token", True, "token", False)


def test_an_old_token_serves_through_two_minutes_of_failures() -> None:
    """No caller waits or sees an error while the token lives, and requests are made at most every few seconds."""
    made, requests = filled(), 0
    for second in range(800, 920):
        look = made.look(KEY, second, second)
        assert (look.token, look.error) == ("token", None)
        if look.fetch:
            requests += 1
            made.failed(KEY, second, UNAVAILABLE)
    assert 120 / LAST_RETRY_SECONDS / 2 <= requests <= 120 / LAST_RETRY_SECONDS * 2 + 6


def test_a_token_is_dropped_before_its_end() -> None:
    """The call that it is for takes time; a short-lived one loses a part, not five seconds."""
    assert filled(1000).look(KEY, 994.9, 0).token
    assert not filled(1000).look(KEY, 995.1, 995.2).token
    assert filled(10).look(KEY, 9.4, 0).token
    assert not filled(10).look(KEY, 9.6, 9.7).token


def test_life_counts_from_the_start_of_the_request() -> None:
    """However long its answer took: the service began to count before."""
    made = cache()
    made.look(KEY, 0.0, 100.0)
    made.succeeded(KEY, 0.0, 50.0, "token", 60)
    assert made.look(KEY, 50.0, 0).token
    assert not made.look(KEY, 58.0, 59).token


@pytest.mark.parametrize(("token", "life", "took"), [("", 60.0, 0.0), ("token", 0.0, 0.0), ("token", 60.0, 61.0)])
def test_an_answer_that_is_no_use_is_a_failure(token: str, life: float, took: float) -> None:
    """Without a token, without a life, or too late: tried again after a while and not at once."""
    made = cache()
    made.look(KEY, 0.0, 100.0)
    made.succeeded(KEY, 0.0, took, token, life)
    look = made.look(KEY, took, 100.0)
    assert not look.fetch
    assert took < look.until < took + 1


def test_a_refusal_is_remembered_briefly() -> None:
    """Ten thousand callers with a wrong secret are one request, and each has an error of its own."""
    made = cache()
    made.look(KEY, 0.0, 10.0)
    made.failed(KEY, 0.0, REFUSED)
    looks = [made.look(KEY, number / 10_000, 100.0) for number in range(10_000)]
    assert {(type(look.error), look.fetch) for look in looks} == {(InvalidClient, False)}
    assert len({id(look.error) for look in looks}) == 10_000
    assert made.look(KEY, REFUSED_SECONDS, 100.0).fetch


def test_retry_info_is_kept() -> None:
    """Who can wait so long waits; who can't learns why at once; nobody asks before."""
    made = cache()
    made.look(KEY, 0.0, 10.0)
    made.failed(KEY, 0.0, limited(30))
    assert isinstance(made.look(KEY, 1.0, 11.0).error, RateLimited)
    patient = made.look(KEY, 1.0, 100.0)
    assert patient.error is None
    assert 30 <= patient.until < 31
    assert not made.look(KEY, 29.9, 100.0).fetch
    assert made.look(KEY, patient.until, 100.0).fetch


def test_waits_double_to_their_bound() -> None:
    """Exponential back-off: each wait is at least half of its step, and never over the last one."""
    made, now, waits = cache(at=1.0), 0.0, []
    for _ in range(12):
        assert made.look(KEY, now, now + 100).fetch
        made.failed(KEY, now, UNAVAILABLE)
        until = made.look(KEY, now, now + 100).until
        waits.append(until - now)
        now = until
    assert waits[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert waits[-1] == pytest.approx(LAST_RETRY_SECONDS)


def test_who_waits_too_long_is_told_why() -> None:
    """With the last failure where there is one, else with DeadlineExceeded."""
    made = cache()
    made.look(KEY, 0.0, 1.0)
    assert isinstance(made.look(KEY, 1.0, 1.0).error, DeadlineExceeded)
    made.failed(KEY, 1.0, UNAVAILABLE)
    assert type(made.look(KEY, 1.0, 1.0).error) is Unavailable


def test_invalidate() -> None:
    """A token that is held and not just issued is dropped, once; the next caller gets another."""
    made = filled()
    assert not made.invalidate("another", 100.0)
    assert not made.invalidate("token", 0.5)
    assert made.look(KEY, 0.5, 1.0).token == "token"
    assert made.invalidate("token", 100.0)
    assert not made.invalidate("token", 100.0)
    assert made.look(KEY, 100.0, 110.0).fetch


def test_scopes_are_a_set_and_audiences_a_list() -> None:
    """One token for the same scopes in another order; one audience may be given as it is."""
    assert wanted("b a b") == wanted("a b") != wanted("a")
    assert wanted("", "one") == wanted("", ["one"]) != wanted("", ["one", "two"])


def test_memory_is_bounded() -> None:
    """However many audiences are asked for, so many tokens are held; what is under way is never forgotten."""
    made = cache()
    made.look(Wanted("flying"), 0.0, 10.0)
    for number in range(3 * MAX_ENTRIES):
        key = Wanted(f"scope-{number}")
        assert made.look(key, 0.0, 10.0).fetch
        made.succeeded(key, 0.0, 0.0, f"token-{number}", 1000)
    assert len(made._entries) <= MAX_ENTRIES
    assert not made.look(Wanted("flying"), 0.0, 10.0).fetch
    assert made.live(Wanted(f"scope-{3 * MAX_ENTRIES - 1}"), 1.0)


def test_nothing_shows_a_token() -> None:
    """Neither a look nor a token's repr has the text."""
    made = filled()
    assert "'token'" not in repr(made.look(KEY, 1.0, 1.0)) + repr(made._entries)


def test_a_scope_that_is_refused_is_its_own() -> None:
    """What is refused for one scope is no news of another."""
    made = filled()
    other = Wanted("everything")
    made.look(other, 1.0, 10.0)
    made.failed(other, 1.0, InvalidScope(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SCOPE", "No."))
    assert isinstance(made.look(other, 2.0, 10.0).error, InvalidScope)
    assert made.look(KEY, 2.0, 10.0).token == "token"


def test_an_error_that_can_not_be_made_again() -> None:
    """Whatever a provider raises, those who wait are told something."""

    class Odd(Exception):
        def __init__(self, message: str, *, response: object) -> None:
            super().__init__(message)

    assert isinstance(repeated(Odd("x", response=None)), CredentialsError)
    same = repeated(OSError(2, "gone"))
    assert (type(same), same.args) == (FileNotFoundError, (2, "gone"))
