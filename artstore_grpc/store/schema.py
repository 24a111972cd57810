"""The database's schema: brings it up to date, and refuses one that this program doesn't know.

Migrations are in `migrations/`, run by Alembic without an alembic.ini. An upgrade is one transaction, and takes a lock
first: of several that start at once one does the work and the others find it done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from artstore_grpc.store import privileges
from artstore_grpc.store.engine import POSTGRESQL, WRITES, make_engine
from artstore_grpc.store.faults import translated

UPGRADE_LOCK = 0x61727473_00000001
"""The PostgreSQL advisory lock of an upgrade; any number that no other lock has."""

CONNECT_TIMEOUT = timedelta(seconds=5)
WAL_ATTEMPTS = 200
WAL_PAUSE_SECONDS = 0.05

UPGRADE_HINT = "run `artstore-grpc db upgrade`"


class SchemaMismatch(Exception):
    """The database's schema is not this program's; one sentence says which is older and what to do."""


class UnknownRole(Exception):
    """The role that was to be given privileges isn't there, or is the one that migrates; one sentence."""


async def upgrade(url: str, run_role: str = "") -> None:
    """Creates or updates the tables; does nothing when they are up to date. On PostgreSQL `run_role`, if given, is then
    the role that the service runs as: it gets what privileges.py says, in the same transaction.

    Waits for an upgrade that another process runs. Raises SchemaMismatch when the schema is newer than this program,
    UnknownRole, StoreUnavailable when the database is down.
    """
    async with _engine(url) as engine:
        with translated():
            if engine.dialect.name != POSTGRESQL:
                await _use_wal(engine)
            async with engine.execution_options(**{WRITES: True}).begin() as connection:
                await _upgrade(connection)
                if run_role:
                    await _grant(connection, run_role)


async def _grant(connection: AsyncConnection, role: str) -> None:
    if connection.dialect.name != POSTGRESQL:
        raise UnknownRole("SQLite has no roles: only PostgreSQL's are split.")
    try:
        await connection.run_sync(privileges.grant, role)
    except LookupError:
        raise UnknownRole("The role to run as must be there already, and be another one than this.") from None


async def check(url: str) -> None:
    """Raises SchemaMismatch unless the schema is this program's, StoreUnavailable when the database is down."""
    async with _engine(url) as engine:
        with translated():
            async with engine.connect() as connection:
                found = await connection.run_sync(_revision)
    _compare(found)


def head_revision() -> str:
    """The revision that this program needs."""
    return _scripts().get_current_head() or ""


async def _upgrade(connection: AsyncConnection) -> None:
    if connection.dialect.name == POSTGRESQL:
        await connection.execute(select(func.pg_advisory_xact_lock(UPGRADE_LOCK)))
    found = await connection.run_sync(_revision)
    if found and _is_unknown(found):
        _compare(found)
    await connection.run_sync(_migrate)


def _migrate(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def _use_wal(engine: AsyncEngine) -> None:
    """WAL is a property of the file, set once, outside of transactions. SQLite doesn't wait for others to set it."""
    for attempt in range(WAL_ATTEMPTS):
        try:
            async with engine.connect() as connection:
                await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            return
        except OperationalError:
            if attempt == WAL_ATTEMPTS - 1:
                raise
            await asyncio.sleep(WAL_PAUSE_SECONDS)


def _compare(found: str | None) -> None:
    wanted = head_revision()
    if found is None:
        raise SchemaMismatch(f"The database has no tables yet: {UPGRADE_HINT}.")
    if _is_unknown(found):
        raise SchemaMismatch(
            f"The database's schema ({found}) is newer than this program's ({wanted}): install a newer artstore-grpc."
        )
    if found != wanted:
        raise SchemaMismatch(
            f"The database's schema ({found}) is older than this program's ({wanted}): {UPGRADE_HINT}."
        )


def _is_unknown(revision: str) -> bool:
    return revision not in {script.revision for script in _scripts().walk_revisions()}


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "artstore_grpc.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


@asynccontextmanager
async def _engine(url: str) -> AsyncIterator[AsyncEngine]:
    """No command timeout: a migration takes as long as it takes."""
    engine = make_engine(url, pool_size=1, connect_timeout=CONNECT_TIMEOUT, command_timeout=None)
    try:
        yield engine
    finally:
        await engine.dispose()
