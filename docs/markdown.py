"""Markdown of the pages that are made from the code: text that means itself, tables, and lists of a folder's pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

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


def contents(page: Path, heading: str, said: str) -> str:
    """A page that lists the others of its folder, by their titles."""
    items = [f"- [{title}]({name})" for name, title in titles(page).items()]
    return "\n".join([BANNER, f"# {heading}", said, "", *items, ""])


def titles(page: Path) -> dict[str, str]:
    """The first heading of each other page of a page's folder, by the file's name. Raises SystemExit for a page without
    one."""
    return {path.name: title(path) for path in sorted(page.parent.glob("*.md")) if path != page}


def title(path: Path) -> str:
    found = next((line[2:] for line in path.read_text().splitlines() if line.startswith("# ")), "")
    if not found:
        raise SystemExit(f"{path} has no title")
    return found
