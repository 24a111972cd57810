"""The file that changes what is logged while the service runs: one ConfigMap reaches every process of every replica.

JSON, `{"level": "debug", "sample": 10}`; what it doesn't name is as the environment has it, and so is everything while
there is no file. One that can't be used is told of in the log, and changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.telemetry.verbosity import LEVELS, MAX_SAMPLE

INTERVAL = timedelta(seconds=1)
"""How often the file is looked at, which costs a `stat`."""
MAX_BYTES = 4096

Stamp = tuple[int, int, int]
"""What tells a file from its successor; one that Kubernetes mounts is replaced by its symbolic link."""
UNREADABLE: Stamp = (0, 0, 0)

CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "level": (lambda value: isinstance(value, str) and value in LEVELS, f"must be one of {', '.join(LEVELS)}"),
    "sample": (lambda value: type(value) is int and 1 <= value <= MAX_SAMPLE, f"must be 1 to {MAX_SAMPLE:,}"),
}
"""The members that there may be, and what goes on after their name where they are wrong."""


class Unusable(Exception):
    """The file can't be used; the message says what to mend, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be told, as Verbosity has it."""

    level: str
    sample: int


class LogSettings:
    """Has a logger tell what the file says; `look` is to be called again and again."""

    def __init__(self, path: Path, logger: Logger) -> None:
        self._path = path
        self._logger = logger
        self._usual = Wanted(logger.verbosity.level, logger.verbosity.sample)
        self._stamp: Stamp | None = None

    async def look(self) -> None:
        """Does what the file says, if it has changed. On the event loop: it is a local file of a few bytes."""
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp  # before it is read: what is written meanwhile is seen by the next look
        try:
            wanted = read(self._path, self._usual) if stamp else self._usual
        except Unusable as problem:
            self._logger.error("log settings not changed", problem=str(problem))
            return
        self._change(wanted)

    def _change(self, wanted: Wanted) -> None:
        verbosity = self._logger.verbosity
        before = Wanted(verbosity.level, verbosity.sample)
        if wanted == before:
            return
        verbosity.change("debug", 1)  # the change itself is told at every level
        self._logger.info(
            "log settings changed",
            **{"from": {"level": before.level, "sample": before.sample}},
            to={"level": wanted.level, "sample": wanted.sample},
        )
        verbosity.change(wanted.level, wanted.sample)


def stamp_of(path: Path) -> Stamp | None:
    """The file's; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return UNREADABLE
    return found.st_ino, found.st_ctime_ns, found.st_size  # ctime: it may be the mode that has been mended


def read(path: Path, usual: Wanted) -> Wanted:
    """What the file says. Raises Unusable."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unusable(f"ARTSTORE_LOG_SETTINGS_FILE names a file that can't be read: {error.strerror}") from None
    try:
        document = json.loads(content) if len(content) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.keys() - CHECKS.keys():
        raise Unusable(f"it must be a JSON object of no other members than {' and '.join(CHECKS)}")
    for name, value in document.items():
        right, problem = CHECKS[name]
        if not right(value):
            raise Unusable(f"{name} {problem}")
    return replace(usual, **document)
