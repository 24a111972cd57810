"""Writes the pages that say what the code says: each is made by a `generate_*.py` beside this.

    python docs/generate.py            writes them all; `make docs` does that
    python docs/generate.py --check    fails where one isn't what this would write
    python docs/generate.py errors api only those

Such a module has `PAGE`, the file's path, and `page()`, its whole text. It reads the code, never a clock or the
environment, so that the same code makes the same text.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PREFIX = "generate_"


def names() -> list[str]:
    """What can be made: `errors` by generate_errors.py."""
    return sorted(path.stem.removeprefix(PREFIX) for path in HERE.glob(f"{PREFIX}*.py"))


def made(name: str) -> tuple[Path, str]:
    """A page's path and text."""
    module = importlib.import_module(PREFIX + name)
    return module.PAGE, module.page()


def main(arguments: list[str]) -> None:
    check = "--check" in arguments
    wanted = [name for name in arguments if name != "--check"] or names()
    if unknown := sorted(set(wanted) - set(names())):
        sys.exit(f"Nothing makes {', '.join(unknown)}; there are {', '.join(names())}.")
    stale = []
    for path, text in map(made, wanted):
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if not check:
            path.write_text(text)
    if check and stale:
        sys.exit(f"{', '.join(stale)}: not what the code says; run: make docs")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main(sys.argv[1:])
