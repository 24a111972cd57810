"""Log lines: one JSON object each, by level, and never an exception's message."""

from __future__ import annotations

import io
import json
import os
import pty
import re
from pathlib import Path
from typing import Any

import pytest

from artstore_grpc.cli import environment
from artstore_grpc.credentials import Credentials
from artstore_grpc.telemetry.logs import configured
from tests.installation import Log

SECRET = "hunter2 in an exception's message"


def lines(log: Log) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def without_time(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "timestamp"}


@pytest.mark.parametrize("level", ["info", "error"])
def test_a_call_is_told_as_any_other_event(level: str) -> None:
    """The shorter way makes the same line, with what the logger always says too."""
    log = Log()
    logger: Any = configured("info", log).bind(worker=3)
    logger.called(level, {"method": "M", "duration_ms": 1.5, "audience": ("a", "b")})
    getattr(logger, level)("call", method="M", duration_ms=1.5, audience=("a", "b"))
    short, long = lines(log)
    assert (
        without_time(short)
        == without_time(long)
        == {
            "level": level,
            "method": "M",
            "duration_ms": 1.5,
            "audience": ["a", "b"],
            "worker": 3,
            "event": "call",
        }
    )
    assert short.keys() == long.keys()


def test_what_is_below_the_level_is_not_told() -> None:
    """At `error` a call that succeeded has no line, one that failed has."""
    log = Log()
    logger = configured("error", log)
    logger.called("info", {"method": "M"})
    logger.info("other")
    logger.called("error", {"method": "M"})
    assert [line["level"] for line in lines(log)] == ["error"]


@pytest.mark.parametrize("value", ["\ud800", 2**70, b"bytes"])
def test_nothing_that_is_logged_can_fail_a_call(value: object) -> None:
    """Lone surrogates, numbers past 64 bits and types that JSON has not are told somehow."""
    log = Log()
    configured("info", log).called("info", {"value": value})
    (line,) = lines(log)
    assert "value" in line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])


@pytest.mark.parametrize("text", ["\x9b31m", "\x85", "\u2028", "\u202e", "\x7f", "\x1b[31m"])
def test_a_line_is_one_line_and_moves_no_cursor(text: str) -> None:
    """What a stranger sent can be read on a terminal, and by a reader of lines."""
    log = Log()
    configured("info", log).info("event", path=f"/{text}")
    (line,) = log.getvalue().splitlines()
    assert line.isprintable()
    assert json.loads(line)["path"] == f"/{text}"


def test_a_dataclass_hides_what_its_repr_hides() -> None:
    """Credentials that were passed by mistake are told without what is secret."""
    log = Log()
    configured("info", log).info("event", credentials=Credentials("id", SECRET))
    assert SECRET not in log.getvalue()


def test_a_traceback_has_no_messages() -> None:
    """A message may quote what it failed on; where it went wrong is told without."""
    log = Log()
    try:
        raise ValueError(SECRET)
    except ValueError:
        configured("info", log).exception("failed")
    (line,) = lines(log)
    assert "ValueError" in line["exception"]
    assert SECRET not in log.getvalue()


def test_a_terminal_gets_readable_text() -> None:
    """People read columns, not JSON."""
    ours, theirs = pty.openpty()
    try:
        with io.TextIOWrapper(io.FileIO(theirs, "w"), write_through=True) as terminal:
            configured("info", terminal).called("info", {"method": "M"})
            told = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
    assert "call" in told
    assert "method" in told
    assert "{" not in told


@pytest.mark.parametrize("colors", [True, False])
def test_colours_are_for_who_wants_them(colors: bool) -> None:
    """NO_COLOR leaves the words and takes the escapes (no-color.org)."""
    ours, theirs = pty.openpty()
    try:
        with io.TextIOWrapper(io.FileIO(theirs, "w"), write_through=True) as terminal:
            configured("info", terminal, colors=colors).info("event", field="value")
            told = os.read(ours, 10_000).decode()
    finally:
        os.close(ours)
    assert "value" in told
    assert ("\x1b[" in told) == colors
    assert environment.colors({"NO_COLOR": "" if colors else "1"}) == colors


def test_a_line_that_cannot_be_written_is_lost() -> None:
    """On a full disk the line is lost and whoever tells it goes on; so too where the log has been closed."""
    full = Path("/dev/full").open("w")  # noqa: SIM115 - closing it fails as writing does
    logger = configured("info", full)
    logger.info("event")
    logger.called("info", {"method": "M"})
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("failed")
    with pytest.raises(OSError, match="No space left"):
        full.close()
    logger.info("event")


def test_a_traceback_of_a_group_shows_where_it_began() -> None:
    """What tasks raise together comes as a group, whose own traceback says nothing of them."""
    log = Log()
    try:
        try:
            raise ValueError(SECRET)
        except ValueError as error:
            raise ExceptionGroup("tasks", [error, KeyError()]) from None
    except ExceptionGroup:
        configured("info", log).exception("failed")
    (line,) = lines(log)
    assert [part in line["exception"] for part in ("ValueError", "ExceptionGroup", SECRET)] == [True, True, False]
