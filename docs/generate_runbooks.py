"""docs/runbooks/README.md: the runbooks, by the titles of their pages."""

from __future__ import annotations

from pathlib import Path

from markdown import BANNER

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "runbooks"
PAGE = FOLDER / "README.md"


def page() -> str:
    pages = sorted(path for path in FOLDER.glob("*.md") if path != PAGE)
    return "\n".join(
        [
            BANNER,
            "# Runbooks",
            "One page for each alert: what it says, what to look at, what to do.",
            "",
            *(f"- [{title(path)}]({path.name})" for path in pages),
            "",
        ]
    )


def title(path: Path) -> str:
    """The first heading. Raises SystemExit for a page without one."""
    found = next((line[2:] for line in path.read_text().splitlines() if line.startswith("# ")), "")
    if not found:
        raise SystemExit(f"{path} has no title")
    return found
