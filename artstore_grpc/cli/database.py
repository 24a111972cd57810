"""`db` and `bootstrap`: the database's schema, brought up to date and looked at; what an installation needs once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.loop import run
from artstore_grpc.cli.output import echo_fields, echo_json, echo_secret, echo_table
from artstore_grpc.cli.serve import ServerCommand, settings_with_warnings
from artstore_grpc.cli.session import json_option
from artstore_grpc.settings import Settings

if TYPE_CHECKING:
    from artstore_grpc.store.compatibility import Standing

PENDING = ("STEP", "KIND", "PROGRAMS FROM", "FOR")


@click.group()
def db() -> None:
    """Look after the database."""


@db.command(cls=ServerCommand)
@click.option(
    "--run-role", metavar="ROLE", default="", help="PostgreSQL role that the service runs as: gets its rights."
)
@click.option(
    "--contract",
    is_flag=True,
    help="Also the steps after which programs of older releases can't run: only once none runs any more.",
)
def upgrade(run_role: str, contract: bool) -> None:
    """Bring the database's schema up to date; does nothing when it is.

    Run it before the new release's processes start; those of the release before run on meanwhile. `db status` tells
    what it would do.

    With --run-role this is run as the role that owns the tables, and the service as ROLE, which may read and write
    rows, append to the ledger, and nothing else. Give it each time: new tables need their grants.
    """
    settings = settings_with_warnings()
    click.echo(said(run(upgraded(settings, run_role, contract=contract))))


async def upgraded(settings: Settings, run_role: str, *, contract: bool) -> Standing:
    from artstore_grpc import installation
    from artstore_grpc.store import schema

    if settings.embedded and not run_role:
        await installation.prepare(settings, contract=contract)  # its folder too
        return await schema.standing(settings.store_url)
    try:
        return await schema.upgrade(settings.store_url, run_role, contract=contract)
    except schema.UnknownRole as error:
        raise Failure(Exit.NOT_FOUND, "UNKNOWN_ROLE", str(error)) from None


def said(standing: Standing) -> str:
    """What has come of an upgrade."""
    if standing.newer:
        return f"The schema ({standing.found}) is newer than this program's ({standing.program}), and takes it."
    if not standing.pending:
        return "The schema is up to date."
    oldest = max(step.oldest for step in standing.pending)
    return (
        f"The schema is up to date, but for {len(standing.pending)} steps that no program of a schema before "
        f"{oldest:04} can bear: once none runs, `artstore-grpc db upgrade --contract` does them."
    )


@db.command(cls=ServerCommand)
@json_option
def status(as_json: bool) -> None:
    """Show the database's schema, this program's, what `db upgrade` would do, and who is connected.

    Exits 7 where this program would refuse to start.
    """
    standing, connections = run(looked_at(settings_with_warnings()))
    if as_json:
        echo_json(status_json(standing, connections))
    else:
        show(standing, connections)
    if standing.refusal:
        raise Failure(Exit.CONFLICT, "SCHEMA_MISMATCH", standing.refusal)


async def looked_at(settings: Settings) -> tuple[Standing, dict[str, int]]:
    """How the schema stands, and the connections by name. A file that isn't there is not made."""
    from artstore_grpc.store import condition, schema
    from artstore_grpc.store.compatibility import Standing

    file = condition.sqlite_file(settings.store_url)
    if file is not None and not file.exists():
        return Standing(None, schema.head_revision()), {}
    return await schema.standing(settings.store_url), await schema.connections(settings.store_url)


def status_json(standing: Standing, connections: dict[str, int]) -> dict[str, Any]:
    return {
        "schema": standing.found or "",
        "program": standing.program,
        "runs": not standing.refusal,
        "pending": [
            {"step": step.revision, "kind": step.kind, "programs_from": step.oldest, "purpose": step.purpose}
            for step in standing.pending
        ],
        "connections": connections,
    }


def show(standing: Standing, connections: dict[str, int]) -> None:
    named = [f"{count} of {name or 'no name'}" for name, count in connections.items()]
    echo_fields(
        [
            ("schema", standing.found or "none yet"),
            ("program", standing.program),
            ("connected", ", ".join(named)),
            ("pending", "" if standing.pending else "nothing"),
        ]
    )
    if standing.pending:
        rows = [(step.revision, step.kind.value, f"{step.oldest:04}", step.purpose) for step in standing.pending]
        echo_table(PENDING, rows)


@click.command(cls=ServerCommand)
@json_option
def bootstrap(as_json: bool) -> None:
    """Create the first administrator, and show its secret this once; exits 3 if there is one already.

    On the embedded default it makes the database first; elsewhere run `db upgrade` before.
    """
    from artstore_grpc import app

    made = run(app.bootstrap(settings_with_warnings()))
    if as_json:
        echo_json({"client_id": made.client_id, "client_secret": made.client_secret})
    else:
        click.echo("The first administrator is created.")
        echo_secret(made.client_id, made.client_secret)
