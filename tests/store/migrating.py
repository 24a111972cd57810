"""Migrations under test: what one that expands may do, checked on a real database; and migrations that only tests have.

`broken_promises` takes a database from the oldest schema whose programs may run after a migration to that migration,
and looks at it as those programs do: by the tables of their schema, in statements that read and write them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from textwrap import indent
from typing import Any

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from artstore_grpc.store import schema
from artstore_grpc.store.compatibility import SCHEMA, version
from artstore_grpc.store.engine import normalised

HEAD = schema.head_revision()
OLDEST = getattr(version(HEAD), "oldest", SCHEMA)
NEXT = SCHEMA + 1
EXPANDING = f"{NEXT:04}_from_{OLDEST:04}"
"""What a migration after this program's last one is called that expands."""

MIGRATION = '''"""A migration of the tests."""

import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {before!r}
branch_labels = None
depends_on = None
leaves = {leaves!r}


def upgrade() -> None:
{body}
'''

CHOSEN = {"role": "user", "state": "active"}
"""Values of columns that take a few only."""


def add_migration(
    folder: Path, body: str, revision: str = EXPANDING, before: str = HEAD, leaves: tuple[str, ...] = ()
) -> str:
    """Writes one; returns its revision."""
    folder.mkdir(parents=True, exist_ok=True)
    made = MIGRATION.format(revision=revision, before=before, leaves=leaves, body=indent(body, "    "))
    (folder / f"trial_{revision}.py").write_text(made)
    return revision


async def run(url: str, work: Callable[[Connection], Any]) -> Any:
    """Has a function work in a transaction."""
    engine = create_async_engine(normalised(url), poolclass=NullPool)
    async with engine.begin() as connection:
        result = await connection.run_sync(work)
    await engine.dispose()
    return result


def revision_of(scripts: ScriptDirectory, number: int) -> str:
    """The revision of a schema's number."""
    return next(
        script.revision
        for script in scripts.walk_revisions()
        if (found := version(script.revision)) and found.number == number
    )


async def broken_promises(url: str, scripts: ScriptDirectory, revision: str) -> list[str]:
    """What programs of the oldest schema that a revision admits can't do any more once a database is there."""
    reached = version(revision)
    assert reached is not None
    oldest = revision_of(scripts, reached.oldest)
    leaves = set(getattr(scripts.get_revision(revision).module, "leaves", ()))
    await run(url, lambda connection: schema._migrate(connection, oldest))
    known = MetaData()
    await run(url, known.reflect)
    before = await run(url, described)
    await run(url, lambda connection: wrote(connection, known, leaves, "before"))
    await run(url, lambda connection: schema._migrate(connection, revision))
    after = await run(url, described)
    found = list(violations(before, after, leaves))
    try:
        await run(url, lambda connection: wrote(connection, known, leaves, "after"))
    except sa.exc.DBAPIError as error:
        found.append(f"a statement fails: {type(error.orig).__name__}")
    return found


def described(connection: Connection) -> dict[str, Any]:
    """Every table: its columns, and what its rows must be like, by name."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": {c["name"]: (str(c["type"]), c["nullable"], c["default"]) for c in inspector.get_columns(table)},
            "primary key": tuple(inspector.get_pk_constraint(table)["constrained_columns"]),
            "unique": {
                *(tuple(c["column_names"]) for c in inspector.get_unique_constraints(table)),
                *(tuple(i["column_names"]) for i in inspector.get_indexes(table) if i["unique"]),
            },
            "checks": {(c["name"], c["sqltext"]) for c in inspector.get_check_constraints(table)},
            "foreign keys": {tuple(c["constrained_columns"]) for c in inspector.get_foreign_keys(table)},
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def violations(before: dict[str, Any], after: dict[str, Any], leaves: Collection[str]) -> Iterator[str]:
    """What of the tables that programs know has gone, or asks for more than they give."""
    for table, old in before.items():
        if table in leaves:
            continue
        if table not in after:
            yield f"{table} is gone"
            continue
        new = after[table]
        gone = {name.partition(".")[2] for name in leaves if name.startswith(f"{table}.")}
        known = {name: column for name, column in old["columns"].items() if name not in gone}
        yield from (f"{table}.{said}" for said in column_violations(known, new["columns"]))
        if new["primary key"] != old["primary key"]:
            yield f"{table} has another primary key"
        for what in ("unique", "checks", "foreign keys"):
            more = {each for each in new[what] - old[what] if what != "checks" or each[0] not in gone}
            if more:
                yield f"{table} has more {what}: {sorted(map(str, more))}"


def column_violations(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """The same of one table's columns: type, whether it may be left out, and what it then is."""
    for name, (type_, nullable, default) in before.items():
        if name not in after:
            yield f"{name} is gone"
            continue
        type_now, nullable_now, default_now = after[name]
        if type_now != type_:  # a wider one too: PostgreSQL's prepared statements fail once
            yield f"{name} is of another type"
        if nullable and not nullable_now:
            yield f"{name} must be given"
        if default is not None and default_now is None:
            yield f"{name} has lost its default"
    for name in after.keys() - before.keys():
        _, nullable, default = after[name]
        if not nullable and default is None:
            yield f"{name} must be given, and programs don't know it"


def wrote(connection: Connection, known: MetaData, leaves: Collection[str], mark: str) -> None:
    """Inserts, reads, and updates a row of every table, by what programs know of it; fails where it isn't read as
    written. Rows that were there before are read too."""
    for table in known.sorted_tables:
        if table.name in {"alembic_version", *leaves}:
            continue
        columns = [column for column in table.columns if f"{table.name}.{column.name}" not in leaves]
        row = {column.name: sample(column, mark) for column in columns}
        only = sa.and_(*(column == row[column.name] for column in table.primary_key.columns))
        if table.name != "ledger_head":  # it has one row
            connection.execute(table.insert().values(row))
            read = connection.execute(sa.select(*columns).where(only)).one()
            assert {key: plain(value) for key, value in read._mapping.items()} == row
        connection.execute(table.update().values({columns[-1].name: row[columns[-1].name]}).where(only))
        assert connection.execute(sa.select(*columns)).all()


def plain(value: Any) -> Any:
    """A read value as it was written: PostgreSQL gives times with their zone."""
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value


def sample(column: sa.Column[Any], mark: str) -> Any:
    """A value of a column's type; equal for columns that refer to one another."""
    if column.name in CHOSEN:
        return CHOSEN[column.name]
    kind = column.type
    if isinstance(kind, sa.JSON):
        return [mark]
    if isinstance(kind, sa.Boolean):
        return True
    if isinstance(kind, sa.Integer):
        return {"before": 1, "after": 2}[mark]
    if isinstance(kind, sa.DateTime):
        return datetime(2030, 1, 2, 3, 4, 5, 6, UTC if kind.timezone else None)
    if isinstance(kind, sa.LargeBinary):
        return mark.encode()
    assert isinstance(kind, sa.String), f"{column} is of a type that this test doesn't know"
    return mark
