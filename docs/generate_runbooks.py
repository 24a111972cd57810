"""docs/runbooks/README.md: the runbooks, by the titles of their pages."""

from __future__ import annotations

from pathlib import Path

from markdown import contents

PAGE = Path(__file__).resolve().parent / "runbooks" / "README.md"


def page() -> str:
    return contents(PAGE, "Runbooks", "One page for each alert: what it says, what to look at, what to do.")
