"""`audit`: the ledger, listed, exported, verified and archived; and denials explained."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import click
from artstore.identity import AdminClient, RateLimited
from artstore.identity.v1 import audit_service_pb2 as pb
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from artstore_grpc import exports
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.ids import IdCommand
from artstore_grpc.cli.output import echo_json, echo_table, time_text
from artstore_grpc.cli.progress import Moved, bar
from artstore_grpc.cli.session import as_client, json_option
from artstore_grpc.files import settle
from artstore_grpc.records import Checkpoint, EventKind, LedgerRow

LISTED = ("SEQUENCE", "TIME", "ACTOR", "KIND", "SUBJECT", "DETAIL")
PAGE = 1000
MOST_LAST = 100_000
"""What --last holds in memory."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Answer = TypeVar("Answer")


@click.group()
def audit() -> None:
    """Read the ledger, where every change is a row, and verify that nothing was altered."""


async def patiently(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """A call that waits as long as it is told to: a ledger has more pages than an account may ask for in a minute."""
    while True:
        try:
            return await call()
        except RateLimited as limited:
            await asyncio.sleep(limited.retry_after.total_seconds() if limited.retry_after else 1)


@audit.command("list")
@click.option("--filter", default="", help="Such as: kind = account.suspended AND sequence > 1000")
@click.option("--limit", type=click.IntRange(1), help="At most so many of the first.  [default: all]")
@click.option("--last", type=click.IntRange(1, MOST_LAST), help="The last so many.")
@json_option
@as_client
async def list_(client: AdminClient, filter: str, limit: int | None, last: int | None, as_json: bool) -> None:
    """List the rows of the ledger in their order; --json prints an object a line, as the pages arrive."""
    if last is not None and limit is not None:
        raise click.UsageError("--last and --limit exclude each other.")
    found = events(client, filter, limit) if last is None else the_last(client, filter, last)
    if not as_json:
        echo_table(LISTED, [listed(event) async for event in found])
        return
    async for event in found:
        click.echo(exports.row_line(row_of(event)), nl=False)


async def the_last(client: AdminClient, filter: str, count: int) -> AsyncIterator[pb.AuditEvent]:
    """The last so many rows, in their order."""
    for event in reversed([event async for event in events(client, filter, count, "sequence desc")]):
        yield event


async def events(
    client: AdminClient, filter: str, limit: int | None = None, order_by: str = ""
) -> AsyncIterator[pb.AuditEvent]:
    """Rows, page by page."""
    request = pb.ListAuditEventsRequest(filter=filter, page_size=min(limit or PAGE, PAGE), order_by=order_by)
    count = 0
    while True:
        page = await patiently(partial(client.audit_events_page, request))
        for event in page.audit_events:
            if limit is not None and count == limit:
                return
            count += 1
            yield event
        request.page_token = page.next_page_token
        if not page.next_page_token or count == limit:
            return


def listed(event: pb.AuditEvent) -> tuple[str, ...]:
    return str(event.sequence), time_text(event.time), event.actor, event.kind, event.subject, event.detail


@audit.command(cls=IdCommand)
@click.argument("denial_id")
@json_option
@as_client
async def explain(client: AdminClient, denial_id: str, as_json: bool) -> None:
    """Say why a caller was truly denied; DENIAL_ID came with its refusal."""
    cause = await client.explain_denial(denial_id)
    if as_json:
        echo_json({"cause": cause})
    else:
        click.echo(cause)


@audit.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@as_client
async def export(client: AdminClient, file: Path) -> None:
    """Write the whole ledger to FILE, with its checkpoints and its public keys; `audit verify FILE` needs no more."""
    with replaced(file) as stream, bar("exporting") as moved:
        rows = await write_export(client, stream, moved)
    click.echo(f"{rows:,} rows are in {file}.")


async def write_export(client: AdminClient, stream: BinaryIO, moved: Moved) -> int:
    """Writes the ledger as it is when this begins; how many rows those are."""
    signed, keys = await checkpoints(client)
    stream.write(exports.format_line())
    stream.writelines(exports.key_line(key) for key in keys)
    if archived := [row_of(event) async for event in events(client, f"kind = {EventKind.LEDGER_ARCHIVED}")]:
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # a verifier will miss it
            stream.write(exports.archive_line(str(archived[-1].parsed()["record"])))
    writer = exports.Writer(stream, signed)
    last = 0
    async for event in events(client, ""):
        if last and event.sequence != last + 1 and await overtaken(client, last):
            raise Failure(Exit.CONFLICT, "ARCHIVED_MEANWHILE", "Rows were archived while they were read: run it again.")
        if not writer.write(row_of(event)):
            break
        last = event.sequence
        if writer.rows % PAGE == 0:
            moved(event.sequence, signed[-1].sequence if signed else 0)
    writer.end()
    return writer.rows


async def overtaken(client: AdminClient, sequence: int) -> bool:
    """Whether an archive has taken what follows a row since that was read; any other gap is for a verifier to find."""
    async for first in events(client, "", limit=1):
        return first.sequence > sequence
    return False


async def checkpoints(client: AdminClient) -> tuple[list[Checkpoint], list[dict[str, str]]]:
    """Every checkpoint, and the public keys that signed them."""
    found: list[Checkpoint] = []
    token = ""
    while True:
        page = await patiently(partial(client.list_audit_checkpoints, page_size=PAGE, page_token=token))
        found += [checkpoint_of(message) for message in page.audit_checkpoints]
        token = page.next_page_token
        if not token:
            return found, [MessageToDict(key) for key in page.ledger_keys]


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name, in place of what had it, once it is whole and on disk; or not at all."""
    try:
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise Failure(Exit.INVALID, "FILE_UNUSABLE", f"{path} can't be written: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(part).replace(path)
        settle(path.parent)
    finally:
        Path(part).unlink(missing_ok=True)


def row_of(event: pb.AuditEvent) -> LedgerRow:
    """A row, exactly as it was hashed."""
    return LedgerRow(
        event.sequence,
        moment(event.time),
        event.actor,
        event.kind,
        event.subject,
        event.detail,
        event.previous_hash,
        event.hash,
    )


def checkpoint_of(message: pb.AuditCheckpoint) -> Checkpoint:
    return Checkpoint(
        message.number, message.sequence, message.hash, moment(message.time), message.kid, message.signature
    )


def moment(time: Timestamp) -> datetime:
    """To the microsecond: integers all the way."""
    return EPOCH + timedelta(seconds=time.seconds, microseconds=time.nanos // 1000)
