"""`accounts import` and `accounts export`: many accounts at once, from and to a file."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click
from artstore.identity import (
    AdminClient,
    IdentityError,
    ImportOutcome,
    ImportResult,
    ServiceAccount,
    Unavailable,
    from_status,
)
from artstore.identity.v1.service_account_service_pb2 import ListServiceAccountsRequest

from artstore_grpc.cli import account_files
from artstore_grpc.cli.account_files import MAX_ITEM_BYTES, Format, Line, unreadable
from artstore_grpc.cli.accounts import accounts
from artstore_grpc.cli.audit import patiently, replaced
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.failures import described
from artstore_grpc.cli.output import echo_json
from artstore_grpc.cli.progress import Moved, bar
from artstore_grpc.cli.session import as_client, json_option
from artstore_grpc.cli.text import cleaned

STANDARD = "-"
BATCH = 100
"""The most that the service takes at once."""
IN_FLIGHT = 4
"""Batches at once: the service reads one while its database writes another."""
TRIES = 8
"""How often a batch is sent while the service can't be reached, for about half a minute in all."""
LONGEST_PAUSE_SECONDS = 8.0
SHOWN = 20
"""Failures that are shown; the report has them all."""
PAGE = 1000

CREATED, UNCHANGED, FAILED = "created", "unchanged", "failed"
OUTCOMES = {ImportOutcome.IMPORT_OUTCOME_CREATED: CREATED, ImportOutcome.IMPORT_OUTCOME_UNCHANGED: UNCHANGED}

format_option = click.option(
    "--format",
    type=click.Choice([each.value for each in Format]),
    help="How the file is written.  [default: by its name, .csv or .jsonl]",
)


def format_of(path: str, given: str | None) -> Format:
    found = Format(given) if given else account_files.format_of(path)
    if found is None:
        raise click.UsageError("Give --format: the file's name doesn't end in .csv or .jsonl.")
    return found


@accounts.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@format_option
@click.option("--dry-run", is_flag=True, help="Check everything, and change nothing.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write what failed here: JSON lines.")
@json_option
@as_client
async def import_(
    client: AdminClient, file: str, format: str | None, dry_run: bool, report: Path | None, as_json: bool
) -> None:
    """Create the accounts of FILE, which another system had, with the ids and the secrets their clients use.

    FILE (- is standard input) is CSV with a header, or JSON lines. Its fields:

    \b
    name                the account's name; needed
    role                admin, user, auditor or readonly; needed
    client_id           what its client authenticates with; a new one if empty
    secret_hash         bcrypt hash of its secret, $2a$, $2b$ or $2y$; none if empty
    secret_expire_time  RFC 3339, at most 90 days ahead; in 90 days if empty
    description, rate_limit, scopes, audiences, served_audiences,
    introspection_only, public_keys, certificate_subject, rotation_policy
                        as the API has them; lists are separated by spaces in CSV,
                        public_keys and rotation_policy are JSON there too

    What can't be created is reported, and the rest is done; the exit code is then 12. Run it again after whatever
    stopped it: an account that was imported before is left as it is.
    """
    lines = account_files.read(content(file), format_of(file, format))
    run = Run(client, dry_run=dry_run)
    with bar("checking" if dry_run else "importing", lines=not as_json) as moved:
        try:
            await run.through(lines, moved)
        except (asyncio.CancelledError, IdentityError):
            told = f"Stopped after {run.done:,} of {len(lines):,}: run the same command again, and it goes on."
            if not as_json:
                click.echo(told, err=True)
            raise
        finally:
            if report is not None:
                write_report(report, run.failures)
    if as_json:
        echo_json({"dry_run": dry_run, **{name: run.counts[name] for name in (CREATED, UNCHANGED, FAILED)}})
    else:
        show_summary(run, report)
    if run.failures:
        raise Failure(Exit.INCOMPLETE, "SOME_FAILED", f"{len(run.failures):,} of {len(lines):,} accounts failed.")


class Run:
    """One run through a file: what became of its lines so far. `failures` are as the report has them."""

    def __init__(self, client: AdminClient, *, dry_run: bool) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[dict[str, Any]] = []
        self.dry_run = dry_run
        self._client = client

    @property
    def done(self) -> int:
        return self.counts.total()

    async def through(self, lines: list[Line], moved: Moved) -> None:
        """Sends every line, some batches at once. Raises what a whole batch is refused with."""
        for line in lines:
            if line.problem or line.violations:
                self._failed(line, unread(line))
        batches = batched(line for line in lines if not line.problem and not line.violations)

        async def work() -> None:
            for batch in batches:
                for line, result in zip(batch, await self._sent(batch), strict=True):
                    self._told(line, result)
                moved(self.done, len(lines))

        workers = [asyncio.create_task(work()) for _ in range(IN_FLIGHT)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self.failures.sort(key=lambda failure: int(failure["line"]))

    async def _sent(self, batch: list[Line]) -> list[ImportResult]:
        """What became of a batch. It may be sent again whatever came of it before."""
        items = [line.item for line in batch]
        pause = LONGEST_PAUSE_SECONDS / 2 ** (TRIES // 2)
        for attempt in range(TRIES):
            try:
                return await patiently(partial(self._client.import_service_accounts, items, validate_only=self.dry_run))
            except Unavailable as error:
                if attempt == TRIES - 1:
                    raise
                told = error.retry_after.total_seconds() if error.retry_after else 0.0
                await asyncio.sleep(max(told, min(pause * 2**attempt, LONGEST_PAUSE_SECONDS)))
        raise AssertionError("unreachable")

    def _told(self, line: Line, result: ImportResult) -> None:
        if result.outcome in OUTCOMES:
            self.counts[OUTCOMES[result.outcome]] += 1
            return
        said = described(from_status(result.error))
        self._failed(line, {name: value for name, value in said.items() if name != "exit_code"})

    def _failed(self, line: Line, why: dict[str, Any]) -> None:
        self.counts[FAILED] += 1
        self.failures.append({"line": line.number, "client_id": line.client_id, "name": line.name, **why})


def batched(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Lines that go into one call together: so many, and so many bytes, as the service takes."""
    batch: list[Line] = []
    size = 0
    for line in lines:
        added = line.item.ByteSize() + 8
        if batch and (len(batch) == BATCH or size + added > MAX_ITEM_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += added
    if batch:
        yield batch


def unread(line: Line) -> dict[str, Any]:
    """Why a line never went to the service."""
    sentence = line.problem or " ".join(f"{each.field} {each.description}." for each in line.violations)
    said: dict[str, Any] = {"reason": "INVALID_LINE", "message": sentence}
    return {**said, "violations": [each._asdict() for each in line.violations]} if line.violations else said


def content(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == STANDARD else Path(file).read_bytes()
    except OSError as error:
        raise unreadable(f"{file} can't be read: {error.strerror}.") from error


def write_report(path: Path, failures: list[dict[str, Any]]) -> None:
    with replaced(path) as stream:
        stream.writelines(json.dumps(failure, ensure_ascii=False).encode() + b"\n" for failure in failures)


def show_summary(run: Run, report: Path | None) -> None:
    for failure in run.failures[:SHOWN]:
        named = failure["client_id"] or failure["name"]
        said = f"line {failure['line']}{f' ({named})' if named else ''}: {failure['reason']}: {failure['message']}"
        click.echo(cleaned(said), err=True)
    if len(run.failures) > SHOWN:
        where = f"{report} has" if report else "--report FILE would have"
        click.echo(f"… and {len(run.failures) - SHOWN:,} more, which {where}.", err=True)
    made = "would be created" if run.dry_run else "created"
    created, unchanged, failed = (run.counts[name] for name in (CREATED, UNCHANGED, FAILED))
    click.echo(f"{run.done:,} accounts: {created:,} {made}, {unchanged:,} unchanged, {failed:,} failed.", err=True)


@accounts.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@format_option
@click.option("--filter", default="", help='Such as: role = user AND state = active AND name : "ingest"')
@as_client
async def export(client: AdminClient, file: str, format: str | None, filter: str) -> None:
    """Write the accounts to FILE (- is standard output), as `accounts import` reads them.

    Without secrets: no hash leaves the service, so accounts imported from it have none until they are rotated. Deleted
    accounts, and those that are part of the installation, are left out.
    """
    kind = format_of(file, format)
    with bar("exporting", lines=True) as moved:
        if file == STANDARD:
            count = await write_export(client, sys.stdout.buffer, kind, filter, moved)
        else:
            with replaced(Path(file)) as stream:
                count = await write_export(client, stream, kind, filter, moved)
    click.echo(f"{count:,} accounts are in {'the output' if file == STANDARD else file}.", err=True)


async def write_export(client: AdminClient, stream: BinaryIO, format: Format, filter: str, moved: Moved) -> int:
    stream.write(account_files.header_line(format))
    count = 0
    async for page in pages(client, filter):
        stream.writelines(account_files.account_line(account, format) for account in page if not account.is_system)
        count += sum(not account.is_system for account in page)
        moved(count, 0)
    stream.flush()
    return count


async def pages(client: AdminClient, filter: str) -> AsyncIterator[list[ServiceAccount]]:
    request = ListServiceAccountsRequest(filter=filter, page_size=PAGE)
    while True:
        page = await patiently(partial(client.service_accounts_page, request))
        yield list(page.service_accounts)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
