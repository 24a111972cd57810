"""Every method, sent what no client of ours would send, answers with a refusal of ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.messages import damaged, garbage, messages
from tests.hostile.victim import METHODS, Victim, assert_refused_clearly

Record = Callable[[str, object], None]

QUICK = settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LONG = settings(QUICK, max_examples=1500, derandomize=False)


def attack(victim: Victim, method: str, chosen: settings, record: Record) -> None:
    """Sends a method garbage, wrong messages and damaged ones."""
    count = 0
    wrong = messages(victim, METHODS[method]).map(lambda message: bytes(message.SerializeToString()))

    @chosen
    @given(st.one_of(garbage(), wrong, wrong, damaged(wrong)), st.booleans())
    def one(data: bytes, authenticated: bool) -> None:
        nonlocal count
        count += 1
        bearer = "ServiceAccount" in method and authenticated
        assert_refused_clearly(victim.call_while_up(method, data, victim.bearer if bearer else ()))

    one()
    record("inputs", count)


@pytest.mark.parametrize("method", METHODS)
def test_fuzzed(each_victim: Victim, method: str, record_property: Record) -> None:
    """Garbage, wrong messages and damaged ones get a refusal of ours, or are valid after all."""
    attack(each_victim, method, QUICK, record_property)


@pytest.mark.fuzz
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", METHODS)
def test_fuzzed_at_length(each_victim: Victim, method: str, record_property: Record) -> None:
    """The same, for as long as a night's CI allows."""
    attack(each_victim, method, LONG, record_property)
