"""What the commands print: JSON for programs with the REST API's names, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click
from artstore.identity import Role, RotationMode, ServiceAccount, State
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
    """An account as the REST API shows it: role, state and mode by their short names."""
    said = {**message_json(account), "role": role_name(account.role), "state": state_name(account.state)}
    if account.HasField("rotation_policy"):
        said["rotation_policy"]["mode"] = short_name(RotationMode, account.rotation_policy.mode)
    return said


def short_name(enumeration: Any, number: int) -> str:
    """`ROTATION_MODE_SELF` of RotationMode is `self`."""
    name: str = enumeration.Name(number)
    return name.rpartition("_")[2].lower()


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
            ("rotation", policy_text(account)),
            ("next rotation", time_text(account.next_rotate_time)),
            ("delivery", delivery_text(account)),
            *((f"secret {secret.id}", secret_text(secret)) for secret in account.secrets),
            ("certificate", account.certificate_subject),
            *((f"key {key.thumbprint}", key_text(key)) for key in account.public_keys),
            ("etag", account.etag),
        ]
    )


def secret_text(secret: Any) -> str:
    """What is known of a secret: when it expires, when and from where it was last used."""
    used = time_text(secret.last_used_time)
    last_used = f"last used {used} from {secret.last_used_source}" if used else "never used"
    came = "imported, " if secret.imported else ""
    hosts = [f"{use.source} ({time_text(use.last_used_time)})" for use in secret.uses]
    used_by = f"; used by {', '.join(hosts)}" if hosts else ""
    return f"{came}expires {time_text(secret.expire_time)}, {last_used}{used_by}"


def policy_text(account: ServiceAccount) -> str:
    """Who rotates its secret, when, and where the new one goes."""
    if not account.HasField("rotation_policy"):
        return ""
    policy = account.rotation_policy
    words = [short_name(RotationMode, policy.mode), f"at {policy.schedule} UTC" if policy.schedule else ""]
    words += [f"overlap {policy.overlap.ToTimedelta()}", f"to {policy.sink}" if policy.sink else "", policy.destination]
    return ", ".join(filter(None, words))


def delivery_text(account: ServiceAccount) -> str:
    """How far a new secret has come on its way to the sink."""
    if not account.HasField("secret_delivery"):
        return ""
    pending = account.secret_delivery
    failed = f", the last one failed: {pending.last_error}" if pending.last_error else ""
    again = time_text(pending.next_attempt_time)
    return f"secret {pending.secret_id} waits: {pending.attempts} attempts{failed}; the next one is at {again}"


def key_text(key: Any) -> str:
    """What a registered key signs with, and the name its owner gave it."""
    return f"{key.alg}, kid {key.kid}" if key.kid else str(key.alg)


def echo_secret(client_id: str, client_secret: str) -> None:
    """The one time that a secret is shown; plain, since a table might fold it."""
    click.echo("\nIts secret is shown this once:\n")
    click.echo(f"  client_id:     {client_id}\n  client_secret: {client_secret}\n")
