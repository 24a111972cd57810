"""`keys rekey` and `keys new-key`: the key-encryption key is changed on the machine that has it, not over the API."""

from __future__ import annotations

import os
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from artstore_grpc.cli.keys import keys
from artstore_grpc.cli.loop import run
from artstore_grpc.cli.output import echo_json
from artstore_grpc.cli.parsing import socket_url
from artstore_grpc.cli.serve import ServerCommand, settings_with_warnings
from artstore_grpc.cli.session import json_option
from artstore_grpc.settings import InvalidSettings

if TYPE_CHECKING:
    from artstore_grpc.root_key import Rewrapped

STANDARD_INPUT = "-"
MAX_KEY_BYTES = 1024
"""Of a file that is to hold 44 characters."""


@keys.command(cls=ServerCommand)
@click.option(
    "--new-key-file",
    metavar="PATH",
    help="File with the new key, 32 bytes in base64, readable by its owner only; - is standard input.",
)
@click.option("--new-kms", metavar="unix:///PATH", help="Socket of the KMS plugin that has the new key.")
@click.option("--new-root", is_flag=True, help="Make a new root key too. Stop every process of the service before.")
@click.option("--yes", is_flag=True, help="With --new-root: every process of the service is stopped.")
@json_option
def rekey(new_key_file: str | None, new_kms: str | None, new_root: bool, yes: bool, as_json: bool) -> None:
    """Encrypt the installation's root key under a new key-encryption key.

    The settings name the present one. Running processes go on; each needs the new key at its next start. A second call
    finds it done and says so. On the embedded default the key file is replaced, by a fresh key if none is given. Keep
    the old key as long as backups of the database from before.

    When the old key and the database may both be known to others, stop the service and give --new-root --yes as well;
    then rotate the signing keys.
    """
    if new_key_file and new_kms:
        raise click.UsageError("Give --new-key-file or --new-kms, not both.")
    if new_root and not yes:
        raise click.UsageError("--new-root needs --yes: a process that still runs would lock accounts out.")
    from artstore_grpc import rekey as use

    settings = settings_with_warnings()
    if new_kms:
        done = run(use.to_kms(settings, _socket(new_kms), now, renew=new_root))
    else:
        key = read_key(new_key_file) if new_key_file else ""
        done = run(use.to_key(settings, key, now, renew=new_root))
    if as_json:
        echo_json({"old_key": done.old_key, "new_key": done.new_key, "sealed_again": done.sealed_again})
    else:
        click.echo(said(done))


def said(done: Rewrapped) -> str:
    lines = [f"The root key is encrypted under {done.new_key} already; nothing was changed."]
    if done.old_key != done.new_key:
        lines = [
            f"The root key is encrypted under {done.new_key}, no longer under {done.old_key}.",
            "Every process of the service needs the new key at its next start.",
        ]
    if done.sealed_again is not None:
        lines = [*lines[done.old_key == done.new_key :], f"It is a new one: {done.sealed_again} keys are sealed again."]
    return "\n".join(lines)


@keys.command("new-key")
@click.option("--file", "path", type=click.Path(path_type=Path), help="Write it to a new file of mode 0600.")
def make_key(path: Path | None) -> None:
    """Make a key-encryption key: 32 random bytes in base64, printed or written to a file that must not exist."""
    from artstore_grpc import key_files, vault

    made = vault.new_key()
    if path is None:
        click.echo(made)
        return
    try:
        if not key_files.write_new(path, made):
            raise InvalidSettings(f"{path} exists; a key is never overwritten.")
    except OSError as error:
        raise InvalidSettings(f"{path} can't be written: {error.strerror}.") from None
    click.echo(f"A new key is in {path}.")


def now() -> datetime:
    return datetime.now(UTC)


def read_key(source: str) -> str:
    """The text of a key file. Raises InvalidSettings when it can't be read, or others may read it."""
    try:
        if source == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_KEY_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise InvalidSettings("--new-key-file must be readable by its owner only (chmod 600).")
                content = file.read(MAX_KEY_BYTES + 1)
        text = content.decode().strip()
    except OSError as error:
        raise InvalidSettings(f"--new-key-file names a file that can't be read: {error.strerror}.") from None
    except ValueError:
        text = ""
    if not text or len(content) > MAX_KEY_BYTES:
        raise InvalidSettings("--new-key-file must hold one key: 32 bytes in base64.")
    return text


def _socket(url: str) -> str:
    try:
        return socket_url(url)
    except ValueError as error:
        raise InvalidSettings(f"--new-kms {error}.") from None
