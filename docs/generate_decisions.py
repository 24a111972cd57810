"""docs/adr/README.md: the decisions, by the titles of their pages."""

from __future__ import annotations

from pathlib import Path

from markdown import BANNER

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "adr"
PAGE = FOLDER / "README.md"


def page() -> str:
    pages = sorted(path for path in FOLDER.glob("*.md") if path != PAGE)
    return "\n".join(
        [
            BANNER,
            "# Decisions",
            "One page each: what was chosen, what was rejected, why. A decision is replaced by a new page that names"
            " the old one.",
            "",
            *(f"- [{title(path)}]({path.name})" for path in pages),
            "",
        ]
    )


def title(path: Path) -> str:
    """The first heading. Raises SystemExit for a page without one, or with a number that isn't its file's."""
    found = next((line[2:] for line in path.read_text().splitlines() if line.startswith("# ")), "")
    if not found.startswith(path.name[:4]):
        raise SystemExit(f"{path.name} must begin with '# {path.name[:4]} ' and its title")
    return found
