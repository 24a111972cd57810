"""Durations as people type them: `0`, `90s`, `30m`, `24h`, `7d`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import click

PATTERN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(s|m|h|d)?")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """A number and its unit; without one, seconds. Raises ValueError."""
    match = PATTERN.fullmatch(text)
    if match is None:
        raise ValueError("must be a number and s, m, h or d, such as 90s or 24h")
    number, unit = match.groups()
    return timedelta(**{UNITS[unit or "s"]: float(number)})


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic for the type checker only
    """A duration as an option; `positive` refuses zero."""

    name = "duration"

    def __init__(self, *, positive: bool = False) -> None:
        self._positive = positive

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            converted = duration(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no duration: a number and s, m, h or d, such as 90s or 24h.", param, ctx)
        if self._positive and not converted:
            self.fail("it must be more than 0.", param, ctx)
        return converted
