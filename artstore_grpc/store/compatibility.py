"""Which programs may run on which schema: told by the id of the schema's revision alone, and so by any program that
will ever be asked. No I/O.

An id is the number of the schema, and behind `_from_` that of the oldest program that may run on it: on a database of
schema `0007_from_0005` programs that were made for schema 5, 6 and 7 run side by side. A program's own schema is the
number of its last migration. docs/upgrading.md says what a migration of each kind may do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

SCHEMA = 5
"""The schema that this program was made for; a test holds it against the last migration."""

PROGRAM = f"artstore-grpc schema {SCHEMA:04}"
"""What this program's connections are called in `pg_stat_activity`."""

FORM = re.compile(r"([0-9]{4})(?:_from_([0-9]{4}))?")
PROGRAM_FORM = re.compile(r"artstore-grpc schema ([0-9]{4})")

UPGRADE_HINT = "run `artstore-grpc db upgrade`"


class Kind(StrEnum):
    """What a migration is to programs that run meanwhile."""

    EXPAND = "expand"
    """Adds: every program that could run before it can after it. The programs that come with it need it."""
    CONTRACT = "contract"
    """Takes away what no program needs from a later schema on: older ones must not run any more. No program needs it,
    so that it may wait for as long as one likes."""
    BREAK = "break"
    """Both at once: none may run meanwhile. Only releases up to 0.2.0 had such."""


@dataclass(frozen=True, slots=True)
class Version:
    """A schema: its number, and the oldest program that may run on it."""

    number: int
    oldest: int

    def admits(self, program: int) -> bool:
        """Whether a program that was made for an older schema may run on this one."""
        return self.oldest <= program < self.number


@dataclass(frozen=True, slots=True)
class Step:
    """A migration: the id of its revision, its kind, the oldest program that may run after it, and what it is for."""

    revision: str
    kind: Kind
    oldest: int
    purpose: str


def version(revision: str | None) -> Version | None:
    """What a revision's id says; None for one that says nothing."""
    match = FORM.fullmatch(revision or "")
    return Version(int(match[1]), int(match[2] or match[1])) if match else None


def kind(before: str | None, revision: str) -> Kind:
    """What the migration between two revisions is. Raises ValueError for an id that says nothing."""
    after, known = version(revision), version(before)
    if after is None:
        raise ValueError(f"{revision} is no revision's id")
    if known is None or after.oldest == after.number:
        return Kind.BREAK
    return Kind.CONTRACT if after.oldest > known.oldest else Kind.EXPAND


@dataclass(frozen=True, slots=True)
class Standing:
    """How a database's schema and a program stand to each other."""

    found: str | None
    """The revision that the database is at; None for one without tables."""
    program: str
    """The revision that the program's migrations lead to."""
    pending: tuple[Step, ...] = ()
    """The program's migrations that the database has not had."""
    newer: bool = False
    """Whether the database is at a revision that the program doesn't know."""

    @property
    def refusal(self) -> str:
        """Why the program must not run on it, in one sentence that says what to do; empty where it may."""
        if self.found is None:
            return f"The database has no tables yet: {UPGRADE_HINT}."
        said = f"The database's schema ({self.found}) is"
        if self.newer:
            return "" if self._is_admitted() else f"{said} newer than {self._own}: install a newer artstore-grpc."
        if any(step.kind is not Kind.CONTRACT for step in self.pending):
            return f"{said} older than {self._own}: {UPGRADE_HINT}."
        return ""

    @property
    def _own(self) -> str:
        return f"this program's ({self.program})"

    def _is_admitted(self) -> bool:
        found, own = version(self.found), version(self.program)
        return found is not None and own is not None and found.admits(own.number)

    def steps(self, *, contract: bool) -> tuple[Step, ...]:
        """What an upgrade does: everything where `contract` allows it or there is nothing yet; else what comes before
        the first step that some program could not bear. Raises ContractNeeded where that is not enough."""
        if contract or self.found is None:
            return self.pending
        first = next((at for at, step in enumerate(self.pending) if step.kind is not Kind.EXPAND), len(self.pending))
        needed = [step for step in self.pending[first:] if step.kind is not Kind.CONTRACT]
        if needed:
            raise ContractNeeded(self.pending[first], needed[-1])
        return self.pending[:first]


class ContractNeeded(Exception):
    """A step that programs of older schemas can't bear must be done first; one sentence says so."""

    def __init__(self, step: Step, needed: Step) -> None:
        oldest = max(step.oldest, needed.oldest)
        super().__init__(
            f"Programs of a schema before {oldest:04} can't run on {needed.revision}: nothing was changed. Stop them, "
            "then run `artstore-grpc db upgrade --contract`."
        )


class OldPrograms(Exception):
    """Programs that could not bear a step are connected; one sentence says how many, of which schema."""

    def __init__(self, oldest: int, found: Sequence[tuple[str, int]]) -> None:
        said = ", ".join(f"{count} of {name}" for name, count in found)
        super().__init__(
            f"Connections of programs that may be of a schema before {oldest:04} are open ({said}): nothing was "
            "changed. Stop those programs, and run it again."
        )


def too_old(connections: Iterable[tuple[str, int]], oldest: int) -> list[tuple[str, int]]:
    """Of connections, counted by the name that they gave themselves, those of programs made for a schema before
    `oldest`. Up to release 0.2.0 programs gave none; whoever else gives none is taken for one of them."""
    found = []
    for name, count in connections:
        match = PROGRAM_FORM.match(name)
        if not name:
            found.append(("no name", count))
        elif match and int(match[1]) < oldest:
            found.append((f"schema {match[1]}", count))
    return found
