"""The arithmetic of keys' lives, without a store."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from artstore_grpc.key_policy import Due, KeyPolicy, Step
from artstore_grpc.model import KeyState, SigningKey
from artstore_grpc.settings import InvalidSettings, Settings
from tests.keys.stand import SECOND, START

HOUR = timedelta(hours=1)


def policy(**changes: object) -> KeyPolicy:
    chosen = {
        "signing_algorithm": "ES256",
        "key_rotation_interval": 24 * HOUR,
        "jwks_max_age": timedelta(minutes=5),
        "token_lifetime": timedelta(minutes=30),
        "outage_window": timedelta(minutes=5),
    }
    return KeyPolicy(**(chosen | changes))  # type: ignore[arg-type]


def key(kid: str, state: KeyState, **changes: object) -> SigningKey:
    made = SigningKey(kid, "ES256", {}, b"", state, START, token_lifetime_seconds=1800)
    return replace(made, **changes)  # type: ignore[arg-type]


ACTIVE = key("active", KeyState.ACTIVE, activate_time=START)
STANDBY = key("standby", KeyState.PREPARED)


@pytest.mark.parametrize(
    ("max_age_seconds", "after_seconds"), [(1, 2), (5, 6), (10, 11), (60, 66), (300, 330), (86_400, 95_040)]
)
def test_a_key_waits_for_every_cache(max_age_seconds: int, after_seconds: int) -> None:
    """It may sign after `jwks_max_age` and a tenth more, at least a second; not a microsecond earlier."""
    rules = policy(jwks_max_age=max_age_seconds * SECOND)
    earliest = START + after_seconds * SECOND
    assert rules.earliest_activate_time(STANDBY) == earliest
    assert rules.may_sign(STANDBY, earliest)
    assert not rules.may_sign(STANDBY, earliest - timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("staleness", "max_age"),
    [(0.0, 300), (0.001, 299), (1.0, 299), (250.5, 49), (299.5, 0), (300.0, 0), (1e9, 0), (float("inf"), 0)],
)
def test_no_more_freshness_is_promised_than_there_is(staleness: float, max_age: int) -> None:
    """What a process has not heard of for so long is taken off, in whole seconds; never below zero."""
    assert policy().max_age(staleness) == max_age * SECOND


@pytest.mark.parametrize(
    ("token_seconds", "outage_seconds", "after_seconds"),
    [(1800, 300, 1800), (60, 0, 300), (60, 300, 600), (3600, 3600, 3900), (86_400, 3600, 86_400)],
)
def test_a_retired_key_stays_for_its_last_token(token_seconds: int, outage_seconds: int, after_seconds: int) -> None:
    """For the longest life of its tokens, or for the outage window and the 5 minutes of a token issued at its end,
    whichever is later; and 35 s for clocks and for the moment in which a process notices."""
    retired = key("a", KeyState.RETIRED, retire_time=START, token_lifetime_seconds=token_seconds)
    rules = policy(outage_window=outage_seconds * SECOND)
    purge_time = START + (after_seconds + 35) * SECOND
    assert rules.purge_time(retired) == purge_time
    assert rules.due([ACTIVE, STANDBY, retired], purge_time) == Due(Step.PURGE, "a")
    assert rules.due([ACTIVE, STANDBY, retired], purge_time - SECOND) != Due(Step.PURGE, "a")
    assert rules.purge_time(ACTIVE) is None


def test_what_is_due() -> None:
    """A standby first; its turn when the active key is old enough and verifiers know it; nothing in between."""
    rules = policy()
    assert rules.due([ACTIVE], START) == Due(Step.PREPARE)
    assert rules.due([ACTIVE, STANDBY], START + 23 * HOUR) is None
    assert rules.due([ACTIVE, STANDBY], START + 24 * HOUR) == Due(Step.ACTIVATE, "standby")
    fresh = replace(STANDBY, create_time=START + 24 * HOUR)
    assert rules.due([ACTIVE, fresh], START + 24 * HOUR) is None
    assert rules.due([ACTIVE, fresh], START + 24 * HOUR + 330 * SECOND) == Due(Step.ACTIVATE, "standby")


def test_keys_never_age_where_the_interval_is_zero() -> None:
    """0: only on request, which a planned activation is, and another algorithm in the settings."""
    rules = policy(key_rotation_interval=timedelta(0))
    assert rules.due([ACTIVE, STANDBY], START + 10_000 * HOUR) is None
    planned = replace(STANDBY, activate_time=START + HOUR)
    assert rules.due([ACTIVE, planned], START + HOUR) == Due(Step.ACTIVATE, "standby")
    assert rules.due([ACTIVE, planned], START + HOUR - SECOND) is None
    other = policy(key_rotation_interval=timedelta(0), signing_algorithm="EdDSA")
    assert other.due([ACTIVE, STANDBY], START + HOUR) == Due(Step.PREPARE)


def test_another_algorithm_takes_over_and_the_old_standby_goes() -> None:
    """The old standby stays for an emergency until the new one is known, then the new one signs, then the old one is
    given up."""
    rules, fresh = policy(signing_algorithm="EdDSA"), key("new", KeyState.PREPARED, algorithm="EdDSA")
    assert rules.due([ACTIVE, STANDBY, fresh], START + 329 * SECOND) is None
    assert rules.due([ACTIVE, STANDBY, fresh], START + 330 * SECOND) == Due(Step.ACTIVATE, "new")
    active = replace(fresh, state=KeyState.ACTIVE, activate_time=START)
    following = key("next", KeyState.PREPARED, algorithm="EdDSA")
    assert rules.due([active, STANDBY], START) == Due(Step.PREPARE)
    assert rules.due([active, STANDBY, following], START + 329 * SECOND) is None
    assert rules.due([active, STANDBY, following], START + 330 * SECOND) == Due(Step.GIVE_UP, "standby")


@pytest.mark.parametrize("seconds", [1, 599])
def test_an_interval_that_no_cache_allows_is_refused(seconds: int) -> None:
    """Under twice `JWKS_MAX_AGE` no standby could be known in time; 0 and twice are taken."""
    with pytest.raises(InvalidSettings, match="ARTSTORE_KEY_ROTATION_INTERVAL"):
        Settings(key_rotation_interval=seconds * SECOND)
    for accepted in (0, 600):
        assert Settings(key_rotation_interval=accepted * SECOND)


@pytest.mark.parametrize(
    ("rules", "keys", "seconds"),
    [
        (policy(), [ACTIVE, STANDBY], 24 * 3600),
        (policy(key_rotation_interval=10 * SECOND), [ACTIVE, STANDBY], 330),
        (policy(), [ACTIVE, replace(STANDBY, activate_time=START + HOUR)], 3600),
        (policy(), [ACTIVE, replace(STANDBY, activate_time=START)], 330),
        (policy(key_rotation_interval=timedelta(0)), [ACTIVE, replace(STANDBY, activate_time=START + HOUR)], 3600),
        (policy(signing_algorithm="EdDSA"), [ACTIVE, key("new", KeyState.PREPARED, algorithm="EdDSA")], 330),
    ],
)
def test_the_next_rotation_is_when_it_is_due(rules: KeyPolicy, keys: list[SigningKey], seconds: int) -> None:
    """What is told beforehand is when the life cycle activates another key, and not a second sooner."""
    at = rules.next_rotation(keys)
    assert at == START + seconds * SECOND
    due, before = rules.due(keys, at), rules.due(keys, at - SECOND)
    assert due is not None
    assert due.step is Step.ACTIVATE
    assert before is None or before.step is not Step.ACTIVATE


def test_no_next_rotation_is_planned() -> None:
    """Without an interval nothing rotates by itself; without a standby of the algorithm nobody can say when."""
    assert policy(key_rotation_interval=timedelta(0)).next_rotation([ACTIVE, STANDBY]) is None
    assert policy(signing_algorithm="EdDSA").next_rotation([ACTIVE, STANDBY]) is None
