"""Writes the dashboards: python deploy/grafana/generate.py [--check]

Each is a file of dashboards/, which Grafana loads as it is; the same input makes the same bytes. --check writes nothing
and fails where a file differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from board_database import DATABASE
from board_overview import OVERVIEW
from board_secrets_and_keys import SECRETS_AND_KEYS
from board_tokens import TOKENS
from panels import dashboard

BOARDS = (OVERVIEW, TOKENS, SECRETS_AND_KEYS, DATABASE)
FOLDER = Path(__file__).resolve().parent / "dashboards"


def main(arguments: list[str]) -> None:
    made = {
        FOLDER / f"{board.uid}.json": json.dumps(dashboard(board), indent=2, ensure_ascii=False) + "\n"
        for board in BOARDS
    }
    if "--check" in arguments:
        old = [path.name for path, text in made.items() if not path.exists() or path.read_text() != text]
        old += sorted(path.name for path in FOLDER.glob("*.json") if path not in made)
        if old:
            sys.exit(f"Not what deploy/grafana/generate.py writes: {', '.join(old)}")
        return
    for path, text in made.items():
        path.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
