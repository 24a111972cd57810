"""Logs: one JSON object a line on standard error, readable text where that is a terminal.

How much is told can change while the process runs (verbosity.py). The event is a constant phrase, data goes in fields.
Secrets, tokens and hashes are never passed here; since an exception's message may quote any of them (PostgreSQL quotes
the whole row that a constraint refused), a traceback shows where it went wrong and the exceptions' types, never their
messages.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO

import orjson
import structlog

from artstore_grpc.telemetry.verbosity import LEVELS, Verbosity

OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS
"""A dataclass is told by its `repr`, which hides what is secret."""
COMPACT = (",", ":")
DELETE = b"\x7f"

CALL = "call"
"""The event of a call's line."""


class Logger(structlog.typing.FilteringBoundLogger, Protocol):
    """What the service logs by: structlog's, and a shorter way for the line that every call has."""

    verbosity: Verbosity
    """What is told, and what is left out."""

    def called(self, level: str, fields: dict[str, Any]) -> None:
        """As `info(CALL, **fields)` or `error`, without the copies that make any other line."""


def configured(level: str, stream: TextIO | None = None, *, sample: int = 1, colors: bool = True) -> Logger:
    """A logger that writes to a stream, standard error by default; `sample` as in Verbosity. `colors` are for a
    terminal only, and its reader may not want them (no-color.org)."""
    out = stream or sys.stderr
    verbosity = Verbosity(level, sample)
    readable: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(trace),
        structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback),
    ]
    logger: Any = structlog.wrap_logger(
        Lines(structlog.WriteLogger(out) if out.isatty() else structlog.BytesLogger(out.buffer)),
        processors=[told_by(verbosity), *(readable if out.isatty() else [line])],
        wrapper_class=bound_logger(verbosity, readable=out.isatty()),
    )
    bound: Logger = logger.bind()  # what wrap_logger returns would bind itself anew for each line
    return bound


class Lines:
    """Where lines go. One that can't be written (a full disk, a pipe that nobody reads any more) is lost: no call fails
    for its line, and nothing that runs by itself ends."""

    def __init__(self, out: structlog.WriteLogger | structlog.BytesLogger) -> None:
        self._write: Callable[[Any], None] = out.msg

    def msg(self, line: str | bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            self._write(line)

    debug = info = warning = error = critical = exception = msg


def told_by(verbosity: Verbosity) -> structlog.typing.Processor:
    """Drops what is below the level of now."""

    def drop(logger: Any, method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if not verbosity.tells("error" if method == "exception" else method):
            raise structlog.DropEvent
        return fields

    return drop


def bound_logger(verbosity: Verbosity, *, readable: bool) -> type[Any]:
    """The class of loggers that tell what `verbosity` has them tell."""

    def at_once(self: Any, level: str, fields: dict[str, Any]) -> None:
        if verbosity.tells(level):
            self._logger.msg(rendered(level, {**self._context, **fields, "event": CALL}))

    def as_any_other(self: Any, level: str, fields: dict[str, Any]) -> None:
        getattr(self, level)(CALL, **fields)

    filtering = structlog.make_filtering_bound_logger(LEVELS["debug"])  # `told_by` filters: this one can't be changed
    return type("BoundLogger", (filtering,), {"called": as_any_other if readable else at_once, "verbosity": verbosity})


def line(logger: Any, method: str, fields: structlog.typing.EventDict) -> bytes:
    """An event as one line of JSON."""
    if "exc_info" in fields:
        fields = structlog.processors.ExceptionRenderer(trace)(logger, method, fields)
    return rendered("error" if method == "exception" else method, fields)


def rendered(level: str, fields: Mapping[str, Any]) -> bytes:
    """JSON: the time, the level, the fields."""
    told = {"timestamp": datetime.now(UTC), "level": level, **fields}
    try:
        made = orjson.dumps(told, default=repr, option=OPTIONS)
    except TypeError:  # a lone surrogate, a number past 64 bits
        told["timestamp"] = f"{told['timestamp']:%Y-%m-%dT%H:%M:%S.%fZ}"
        return json.dumps(told, default=repr, separators=COMPACT).encode()
    if made.isascii() and DELETE not in made:
        return made
    return json.dumps(orjson.loads(made), separators=COMPACT).encode()  # a terminal obeys some of what is not ASCII


class Relay(logging.Handler):
    """Passes what libraries log to our logger: their sentence without its arguments, which may quote anything."""

    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._logger.warning(
            "library", logger=record.name, text=str(record.msg), error=type(error).__qualname__ if error else ""
        )


def capture_library_logs(logger: Logger) -> None:
    """Has this process's libraries log through `logger`; for the program's entry, since it holds for the process."""
    logging.basicConfig(handlers=[Relay(logger)], level=logging.WARNING, force=True)


def trace(exc_info: Any) -> str:
    """A traceback without messages, from the first cause to what was raised in the end."""
    error: BaseException = exc_info[1]
    parts = [f"{''.join(traceback.format_tb(each.__traceback__))}{type(each).__qualname__}" for each in chain(error)]
    return "\n".join(reversed(parts))


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, its cause, and so on; one that was meant to be hidden ends it. Of a group the first one counts as
    its cause."""
    while error is not None:
        yield error
        first = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = first or error.__cause__ or (None if error.__suppress_context__ else error.__context__)
