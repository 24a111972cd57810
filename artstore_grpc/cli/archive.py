"""`audit archive`: an operator's command on the database itself; old rows move to a file that verifies by itself."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artstore_grpc.cli.audit import audit
from artstore_grpc.cli.durations import DurationType
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.loop import run
from artstore_grpc.cli.output import echo_json
from artstore_grpc.cli.progress import Moved, bar
from artstore_grpc.cli.serve import ServerCommand, settings_with_warnings
from artstore_grpc.cli.session import json_option
from artstore_grpc.cli.verify import broken
from artstore_grpc.settings import InvalidSettings, Settings

if TYPE_CHECKING:
    from artstore_grpc.archives import Archives
    from artstore_grpc.checkpoints import Archive


@audit.command(cls=ServerCommand)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--before-checkpoint", type=click.IntRange(1), metavar="N", help="Rows up to the one that N vouches for.")
@click.option(
    "--older-than", type=DurationType(), metavar="DURATION", help="Up to the last checkpoint that is this old."
)
@json_option
def archive(file: Path, before_checkpoint: int | None, older_than: timedelta | None, as_json: bool) -> None:
    """Move old rows of the ledger to FILE: written, verified, on disk, and only then deleted.

    The 10,000 rows before the newest checkpoint stay. If it is interrupted, run it again with the same FILE.
    """
    if (before_checkpoint is None) == (older_than is None):
        raise click.UsageError("Give either --before-checkpoint or --older-than.")
    settings = settings_with_warnings()
    with bar("archiving") as moved:
        made = run(archived(settings, file, before_checkpoint, older_than, moved))
    if as_json:
        echo_json(
            {"checkpoint": made.checkpoint, "sequence": made.sequence, "hash": made.hash.hex(), "sha256": made.file}
        )
    else:
        click.echo(f"Rows up to {made.sequence}, whose hash is {made.hash.hex()}, are in {file}.")
        click.echo(f"Its SHA-256 is {made.file}.")


async def archived(settings: Settings, file: Path, number: int | None, age: timedelta | None, moved: Moved) -> Archive:
    # Imported late: the commands that are clients start without the server's libraries.
    from artstore_grpc import installation, root_key
    from artstore_grpc.archives import ArchiveRefused, Archives
    from artstore_grpc.errors import LeaseLost
    from artstore_grpc.notary import Notary
    from artstore_grpc.store import schema
    from artstore_grpc.store.sql import SqlStore
    from artstore_grpc.telemetry.logs import configured
    from artstore_grpc.vault import Vault, WrongKey
    from artstore_grpc.verification import Broken

    encryption = await installation.prepare(settings, contract=False)
    await schema.check(settings.store_url)
    store = SqlStore(settings.store_url, pool_size=2)
    holder = uuid.uuid4().hex
    try:
        vault = Vault(await root_key.opened(store, encryption, utc_now))
        notary = Notary(store, vault, utc_now, configured(settings.log_level), holder)
        return await carried_out(Archives(store, notary, utc_now, holder), file, number, age, moved)
    except ArchiveRefused as error:
        raise Failure(Exit.CONFLICT, "ARCHIVE_REFUSED", str(error)) from error
    except LeaseLost as error:
        raise Failure(Exit.CONFLICT, "LEASE_LOST", "It took too long, and another archive may have begun.") from error
    except OSError as error:
        raise Failure(Exit.INVALID, "FILE_UNUSABLE", f"{file} can't be written: {error.strerror}.") from error
    except Broken as error:
        raise broken(str(error)) from error
    except WrongKey as error:
        raise InvalidSettings(f"The key-encryption key isn't this database's. {error}") from None
    finally:
        await store.close()
        await encryption.close()


async def carried_out(
    archives: Archives, file: Path, number: int | None, age: timedelta | None, moved: Moved
) -> Archive:
    """Ends an archive that was interrupted, if there is one; else, or in place of one whose file is lost, makes one."""
    pending = await archives.pending()
    if pending is not None and not await archives.replaceable(pending, file):
        return await archives.resume(pending, file, lambda what, done, total: moved(done, total))
    if number is not None:
        through = await archives.by_number(number)
    else:
        assert age is not None
        through = await archives.left_behind(file) or await archives.older_than(age)
    return await archives.archive(through, file, lambda what, done, total: moved(done, total))


def utc_now() -> datetime:
    return datetime.now(UTC)
