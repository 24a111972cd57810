"""Logs: one JSON object a line on standard error, readable text where that is a terminal.

The event is a constant phrase, data goes in fields. Secrets, tokens and hashes are never passed here.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Logger = structlog.typing.FilteringBoundLogger


def configured(level: str, stream: TextIO | None = None) -> Logger:
    """A logger that writes to a stream (standard error by default); the library's own loggers go there too."""
    out = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    rendered: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=True, exception_formatter=structlog.dev.plain_traceback)
        if out.isatty()
        else structlog.processors.JSONRenderer()
    )
    if out.isatty():
        shared.pop()  # the renderer shows exceptions itself
    logger: Logger = structlog.wrap_logger(
        structlog.WriteLogger(out),
        processors=[*shared, rendered],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
    )
    return logger
