"""`db backup`: a copy of the embedded database, or of another SQLite file, while the service runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from artstore_grpc.cli.database import db
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.output import echo_json
from artstore_grpc.cli.serve import ServerCommand, settings_with_warnings
from artstore_grpc.cli.session import json_option
from artstore_grpc.settings import Settings

if TYPE_CHECKING:
    from artstore_grpc.store.backup import Backup


@db.command(cls=ServerCommand)
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def backup(path: Path, as_json: bool) -> None:
    """Copy the embedded database to PATH while the service runs; never over a file that is there.

    The key-encryption key is not in it, and must not lie beside it: back it up apart. docs/backup.md says how to
    restore. For a PostgreSQL use pg_dump or pg_basebackup.
    """
    made = copied(settings_with_warnings(), path)
    if as_json:
        echo_json(
            {
                "file": str(path),
                "bytes": made.size,
                "schema": made.schema,
                "sequence": made.sequence,
                "hash": made.hash.hex(),
                "key_encryption_key": made.kek_id,
            }
        )
        return
    click.echo(f"{path} has {made.size:,} bytes; its ledger ends at {made.sequence}:{made.hash.hex()}.")
    if made.kek_id:
        click.echo(f"It is of no use without the key-encryption key {made.kek_id}, which is not in it.")


def copied(settings: Settings, path: Path) -> Backup:
    """Raises Failure."""
    from artstore_grpc.store import condition
    from artstore_grpc.store.backup import BackupFailed, backup

    file = condition.sqlite_file(settings.store_url)
    if file is None:
        said = "This database is a PostgreSQL: back it up by pg_dump or pg_basebackup (docs/backup.md)."
        raise Failure(Exit.INVALID, "NOT_SQLITE", said)
    try:
        return backup(file, path)
    except BackupFailed as error:
        raise Failure(Exit.CONFLICT, "BACKUP_FAILED", str(error)) from error
    except OSError as error:
        raise Failure(Exit.INVALID, "FILE_UNUSABLE", f"{path} can't be written: {error.strerror}.") from error
