"""What the commands print: JSON for programs with the REST API's names, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click
from artstore.identity import Role, ServiceAccount, State
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from artstore_grpc.cli.text import cleaned

PIPED_WIDTH = 500
"""Columns where standard output is no terminal: nothing is folded there, so that grep and awk see whole lines."""


def echo_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def message_json(message: Message) -> dict[str, Any]:
    """A message with the protos' own names; fields that are not set are left out, empty ones are not."""
    said: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return said


def account_json(account: ServiceAccount) -> dict[str, Any]:
    """An account as the REST API shows it: role and state by their short names."""
    return {**message_json(account), "role": role_name(account.role), "state": state_name(account.state)}


def role_name(role: int) -> str:
    return Role.Name(Role.ValueType(role)).removeprefix("ROLE_").lower()


def state_name(state: int) -> str:
    return State.Name(State.ValueType(state)).removeprefix("STATE_").lower()


def time_text(time: Timestamp) -> str:
    """`2026-01-31 13:59:07 UTC`; empty for a time that is not set."""
    return "" if not time.seconds else datetime.fromtimestamp(time.seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def console() -> Console:
    """The terminal, or a stream that is no terminal: then without colours, and wide."""
    stream = sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def echo_table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """A table with a title above each column."""
    table = Table(*titles, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    _add(table, rows)
    console().print(table)


def echo_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line; those without a value are left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    _add(table, (field for field in fields if field[1]))
    console().print(table)


def _add(table: Table, rows: Iterable[Iterable[str]]) -> None:
    for row in rows:
        table.add_row(*(Text(cleaned(cell)) for cell in row))


def echo_account(account: ServiceAccount) -> None:
    """An account with all that is known of it."""
    echo_fields(
        [
            ("name", account.name),
            ("client_id", account.client_id),
            ("id", account.id),
            ("description", account.description),
            ("role", role_name(account.role)),
            ("state", state_name(account.state)),
            ("rate_limit", f"{account.rate_limit:,} requests a minute"),
            ("scopes", " ".join(account.scopes)),
            ("audiences", " ".join(account.audiences)),
            ("served_audiences", " ".join(account.served_audiences)),
            ("introspection_only", "yes" if account.introspection_only else ""),
            ("is_system", "yes" if account.is_system else ""),
            ("created", time_text(account.create_time)),
            ("updated", time_text(account.update_time)),
            ("deleted", time_text(account.delete_time)),
            ("purged", time_text(account.purge_time)),
            *((f"secret {secret.id}", secret_text(secret)) for secret in account.secrets),
            *((f"key {key.thumbprint}", key_text(key)) for key in account.public_keys),
            ("etag", account.etag),
        ]
    )


def secret_text(secret: Any) -> str:
    """What is known of a secret: when it expires, when and from where it was last used."""
    used = time_text(secret.last_used_time)
    last_used = f"last used {used} from {secret.last_used_source}" if used else "never used"
    return f"expires {time_text(secret.expire_time)}, {last_used}"


def key_text(key: Any) -> str:
    """What a registered key signs with, and the name its owner gave it."""
    return f"{key.alg}, kid {key.kid}" if key.kid else str(key.alg)


def echo_secret(client_id: str, client_secret: str) -> None:
    """The one time that a secret is shown; plain, since a table might fold it."""
    click.echo("\nIts secret is shown this once:\n")
    click.echo(f"  client_id:     {client_id}\n  client_secret: {client_secret}\n")
