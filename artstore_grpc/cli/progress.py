"""How commands that take long show how far they are: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Moved = Callable[[int, int], None]
"""Moves a progress bar: so many of so many; 0: nobody knows how many there are."""

LINES = 10
"""How many plain lines a run has where its end is known,"""
LINE_EVERY = 10_000
"""and after how many of what is counted there is one where it isn't."""


@contextlib.contextmanager
def bar(what: str, *, lines: bool = False) -> Iterator[Moved]:
    """A progress bar on standard error, where that is a terminal; elsewhere, with `lines`, a line now and then."""
    if lines and not os.isatty(2):
        yield Lines(what)
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not os.isatty(2)) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=max(done, total) or None)


class Lines:
    """Progress as text for a log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said = 0

    def __call__(self, done: int, total: int) -> None:
        step = -(-total // LINES) or LINE_EVERY
        if done // step > self._said:
            self._said = done // step
            click.echo(f"{self._what}: {done:,}" + (f" of {total:,}" if total else ""), err=True)
