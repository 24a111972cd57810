"""What the tests of archives share: a command, a file that it makes, and a process that ends in the middle."""

from __future__ import annotations

from pathlib import Path

from artstore_grpc import exports
from artstore_grpc.archives import Archives
from artstore_grpc.checkpoints import Archive
from artstore_grpc.records import LedgerRow
from tests.auditing import Ledger

KEPT = 20
"""Rows that stay, however old."""


class Killed(BaseException):
    """The process ends here."""


def archiving(kept: Ledger, holder: str = "one") -> Archives:
    return Archives(kept.store, kept.notary, kept.clock, holder)


async def made(kept: Ledger, number: int, path: Path) -> Archive:
    command = archiving(kept)
    return await command.archive(await command.by_number(number), path, silent)


def silent(what: str, done: int, total: int) -> None:
    pass


def parts(folder: Path) -> list[str]:
    """Files that were begun and not finished."""
    return [each.name for each in folder.glob(".*.part")]


def there(path: Path) -> bool:
    return path.exists()


def verify(path: Path) -> exports.Verified:
    with path.open("rb") as file:
        return exports.verify(file)


async def after(kept: Ledger, sequence: int) -> list[LedgerRow]:
    return await kept.store.ledger(sequence, 1000)


async def killed(*arguments: object) -> None:
    raise Killed
