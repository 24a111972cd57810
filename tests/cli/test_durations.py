"""Durations as people type them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from artstore_grpc.cli.durations import duration


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", timedelta(0)),
        ("0s", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("90", timedelta(seconds=90)),
        ("0.5", timedelta(milliseconds=500)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(hours=24)),
        ("1.5h", timedelta(minutes=90)),
        ("7d", timedelta(days=7)),
    ],
)
def test_accepted(text: str, value: timedelta) -> None:
    """A number and its unit; without one it is seconds."""
    assert duration(text) == value


@pytest.mark.parametrize("text", ["", "h", "-1s", "1w", "1 h", "1h30m", "24H", "1e3", "nan", "٣s", "1" * 30, ".5s"])
def test_refused(text: str) -> None:
    """Anything else is refused rather than guessed."""
    with pytest.raises(ValueError, match="number"):
        duration(text)
