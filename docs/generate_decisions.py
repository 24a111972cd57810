"""docs/adr/README.md: the decisions, by the titles of their pages."""

from __future__ import annotations

from pathlib import Path

from markdown import contents, titles

PAGE = Path(__file__).resolve().parent / "adr" / "README.md"
SAID = (
    "One page each: what was chosen, what was rejected, why. A decision is replaced by a new page that names the old"
    " one."
)


def page() -> str:
    """Raises SystemExit for a page whose title has a number that isn't its file's."""
    for name, title in titles(PAGE).items():
        if not title.startswith(name[:4]):
            raise SystemExit(f"{name} must begin with '# {name[:4]} ' and its title")
    return contents(PAGE, "Decisions", SAID)
