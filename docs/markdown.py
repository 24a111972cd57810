"""Markdown of the pages that are made from the code: text that means itself, and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

BANNER = "<!-- Written by `make docs`; don't edit. -->"
CODE = re.compile(r"(`[^`]*`)")
MARKUP = re.compile(r"\*|\b_\B|\B_\b")


def text(plain: str) -> str:
    """A sentence whose code is in backticks, and in which nothing else is markup."""
    parts = CODE.split(plain)
    return "".join(part if part.startswith("`") else escaped(part) for part in parts)


def escaped(plain: str) -> str:
    return MARKUP.sub(r"\\\g<0>", plain.replace("<", "&lt;"))


def code(name: str) -> str:
    return f"`{name}`" if name else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; its cells may hold any character."""
    return [line(head), "|" + "---|" * len(head), *map(line, rows)]


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def anchor(heading: str) -> str:
    """What a link to a heading ends in: as GitHub makes it, and mkdocs.yml says."""
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
