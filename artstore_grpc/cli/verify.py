"""`audit verify`: whether the ledger holds: that of a running service, or a file of it by nothing but the file."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import click
from artstore.identity import AdminClient

from artstore_grpc import exports
from artstore_grpc.cli.audit import audit, patiently
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.output import echo_json
from artstore_grpc.cli.progress import bar
from artstore_grpc.cli.session import as_client, json_option, target_option, timeout_option
from artstore_grpc.ledger import Head
from artstore_grpc.verification import Broken, HeadArchived

HEAD_FORM = re.compile(r"([1-9][0-9]{0,18}):([0-9a-f]{64})")
ROWS_PER_CALL = 20_000
"""Fewer than the service would verify at once, so that a call ends well within its time and the bar moves."""


class HeadType(click.ParamType):  # type: ignore[type-arg]  # generic for the type checker only
    """A head that was published: SEQUENCE:HEX."""

    name = "head"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        if isinstance(value, tuple):
            return value
        match = HEAD_FORM.fullmatch(value.strip().lower())
        if match is None:
            self.fail("it must be SEQUENCE:HASH, the hash as 64 hexadecimal digits.", param, ctx)
        return int(match[1]), bytes.fromhex(match[2])


@audit.command()
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path), required=False)
@click.option("--head", type=HeadType(), metavar="SEQUENCE:HASH", help="A head that was published: it must be there.")
@click.option(
    "--ledger-key", default="", metavar="KID", help="With FILE: the one key that checkpoints may be signed by."
)
@json_option
@target_option
@timeout_option
@click.pass_context
def verify(
    context: click.Context,
    /,
    file: Path | None,
    head: Head | None,
    ledger_key: str,
    as_json: bool,
    **service: Any,
) -> None:
    """Verify the ledger of a running service; with FILE an export or an archive, by nothing but the file.

    Exits 11 when it is broken, and names the first row or checkpoint that is wrong.
    """
    if file is None:
        if ledger_key:
            raise click.UsageError("--ledger-key is for a FILE: the service knows its own keys.")
        context.invoke(verify_service, head=head, as_json=as_json, **service)
        return
    said = verified_file(file, head, ledger_key)
    if as_json:
        echo_json(said)
        return
    click.echo(f"Intact: {said['rows']:,} rows and {said['checkpoints']:,} checkpoints.")
    click.echo(f"Rows {said['first_sequence']} to {said['last_sequence']}, whose hash is {said['last_hash']}.")
    if said["checkpoints"]:
        signers = ", ".join(said["ledger_keys"])
        click.echo(f"Checkpoints signed by {signers} vouch for the rows up to {said['vouched_sequence']}.")
    else:
        click.echo("No checkpoint vouches for any of them.")
    if said["last_sequence"] > said["vouched_sequence"]:
        click.echo("Rows that none vouches for anybody may have written who can write to the database or to the file.")
    if not ledger_key:
        click.echo("Compare that key with the one you know, or give it: --ledger-key KID.", err=True)


def verified_file(file: Path, head: Head | None, kid: str) -> dict[str, Any]:
    """What a file holds, once it is verified. Raises Failure."""
    size = file.stat().st_size
    with file.open("rb") as stream, bar("verifying") as moved:
        try:
            found = exports.verify(stream, kid=kid, published=head, told=lambda: moved(stream.tell(), size))
        except exports.Malformed as error:
            raise broken(str(error)) from error
        except Broken as error:
            raise broken(str(error)) from error
        except HeadArchived as error:
            raise archived_head() from error
    return {
        "intact": True,
        "rows": found.rows,
        "checkpoints": found.checkpoints,
        "first_sequence": found.first,
        "last_sequence": found.last[0],
        "last_hash": found.last[1].hex(),
        "vouched_sequence": found.vouched,
        "ledger_keys": list(found.kids),
    }


def broken(problem: str) -> Failure:
    return Failure(Exit.BROKEN, "LEDGER_BROKEN", f"The ledger is broken. {problem}")


def archived_head() -> Failure:
    return Failure(Exit.CONFLICT, "HEAD_ARCHIVED", "The head was archived before: verify the archive with it.")


@click.command()
@as_client
async def verify_service(client: AdminClient, head: Head | None, as_json: bool) -> None:
    """The ledger of the service, stretch by stretch."""
    rows = signed = 0
    after: Head = (0, b"")
    with bar("verifying") as moved:
        while True:
            answer = await patiently(
                partial(client.verify_audit_log, after=after, max_rows=ROWS_PER_CALL, head=head or (0, b""))
            )
            rows, signed = rows + answer.verified_rows, signed + answer.verified_checkpoints
            after = (answer.last_sequence, answer.last_hash)
            if not answer.intact:
                raise broken(answer.problem)
            if not answer.next_sequence:
                break
            moved(rows, 0)
    if as_json:
        said = {
            "intact": True,
            "rows": rows,
            "checkpoints": signed,
            "last_sequence": after[0],
            "last_hash": after[1].hex(),
        }
        echo_json(said)
        return
    click.echo(
        f"Intact: {rows:,} rows and {signed:,} checkpoints, up to row {after[0]}, whose hash is {after[1].hex()}."
    )
