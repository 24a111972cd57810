"""Filters of lists (a part of AIP-160)."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc import filters
from artstore_grpc.errors import InvalidRequest
from artstore_grpc.model import Comparison


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   ", []),
        ("role = admin", [("role", "=", "admin")]),
        ("role=ROLE_ADMIN", [("role", "=", "admin")]),
        ('state != "suspended"', [("state", "!=", "suspended")]),
        ('name : "ingest"', [("name", ":", "ingest")]),
        (r'name = "a \"quoted\" \\ name"', [("name", "=", 'a "quoted" \\ name')]),
        ("role = user AND state = active", [("role", "=", "user"), ("state", "=", "active")]),
        ('name = "AND"', [("name", "=", "AND")]),
        (
            'secret_expire_time < "2030-01-31T01:00:00+01:00"',
            [("secret_expire_time", "<", datetime(2030, 1, 31, tzinfo=UTC))],
        ),
    ],
)
def test_a_filter_is_its_comparisons(text: str, expected: list[tuple[str, str, object]]) -> None:
    """Fields, operators and values are read as AIP-160 writes them."""
    assert filters.parse(text) == tuple(Comparison(*each) for each in expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "role",
        "role =",
        "role = admin AND",
        "role = admin OR role = user",
        "role = admin and state = active",
        "AND role = admin",
        "role = king",
        "role < admin",
        "state : active",
        "colour = red",
        'name = "open',
        "name = (a)",
        "name > a",
        '"role" = admin',
        "role = = admin",
        "secret_expire_time = 2030-01-31",
        'secret_expire_time < "2030-01-31"',
        'secret_expire_time < "2030-01-31T00:00:00"',
        'secret_expire_time < "0001-01-01T00:00:00+23:00"',
        'secret_expire_time < "2030-13-31T00:00:00Z"',
        'name = "\0"',
        "name = " + "a" * 1000,
        " AND ".join(["role = user"] * 21),
        "role = admin state = active x",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """A filter that can't be read is INVALID_ARGUMENT about `filter`, in one sentence without the value."""
    with pytest.raises(InvalidRequest) as refused:
        filters.parse(text)
    assert refused.value.violations[0].field == "filter"


@given(st.text(max_size=100))
def test_noise_never_fails_otherwise(text: str) -> None:
    """Whatever is sent is parsed or refused."""
    with contextlib.suppress(InvalidRequest):
        filters.parse(text)
