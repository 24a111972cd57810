"""Accounts of another system, in a file that is imported."""

from __future__ import annotations

import csv
from pathlib import Path
from uuid import uuid4

from tests.bcrypt_vectors import ABC


def rows(count: int, **columns: str) -> list[dict[str, str]]:
    """Accounts of another system, no two of any test's alike."""
    mark = uuid4().hex[:8]
    return [
        {"client_id": f"old-{mark}-{n}", "name": f"imported {mark} {n}", "role": "user", "secret_hash": ABC, **columns}
        for n in range(count)
    ]


def written(path: Path, accounts: list[dict[str, str]]) -> str:
    """A CSV file of accounts."""
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*accounts[0]])
        writer.writeheader()
        writer.writerows(accounts)
    return str(path)
