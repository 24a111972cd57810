"""The database's schema: brings it up to date, and refuses one that this program can't run on.

Migrations are in `migrations/`, run by Alembic without an alembic.ini. An upgrade is one transaction, and takes a lock
first: of several that start at once one does the work and the others find it done. What a program can run on is
compatibility.py's to say. On PostgreSQL a migration never waits long for a table: who waits for a table's lock has
everybody else wait behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from artstore_grpc.store import compatibility, privileges
from artstore_grpc.store.compatibility import Kind, OldPrograms, Standing, Step, too_old
from artstore_grpc.store.engine import POSTGRESQL, WRITES, make_engine
from artstore_grpc.store.faults import translated

UPGRADE_LOCK = 0x61727473_00000001
"""The PostgreSQL advisory lock of an upgrade; any number that no other lock has."""

CONNECT_TIMEOUT = timedelta(seconds=5)
WAL_ATTEMPTS = 200
WAL_PAUSE_SECONDS = 0.05

LOCK_TIMEOUT = timedelta(seconds=2)
"""How long a migration waits for a table that others use; for so long those behind it wait too."""
LOCK_ATTEMPTS = 30
LOCK_PAUSE_SECONDS = 1.0
"""Between two attempts: those who waited get their turn."""
LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE `lock_not_available` (PostgreSQL manual, appendix A)."""

VERSIONS = ("artstore_grpc.store:migrations/versions",)
"""Where the migrations are."""

CONNECTIONS = text(
    "SELECT coalesce(application_name, '') AS name, count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND usesysid IS NOT NULL AND pid <> pg_backend_pid() GROUP BY 1 ORDER BY 1"
)
"""By the name that they gave themselves, which every role may see (PostgreSQL manual, §27.2.3)."""


class SchemaMismatch(Exception):
    """This program can't run on the database's schema; one sentence says which is older and what to do."""


class UnknownRole(Exception):
    """The role that was to be given privileges isn't there, or is the one that migrates; one sentence."""


class TablesInUse(Exception):
    """A migration has not got its locks; nothing was changed; one sentence."""


async def upgrade(url: str, run_role: str = "", *, contract: bool = False) -> Standing:
    """Creates or updates the tables; does nothing when they are up to date, or newer and fit for this program. How they
    stand afterwards: `pending` are contract steps that wait, unless `contract` lets them be done. On PostgreSQL
    `run_role`, if given, is the role that the service runs as: it gets what privileges.py says, in the same
    transaction.

    Waits for an upgrade that another process runs. Raises SchemaMismatch when the schema is newer than this program can
    run on, ContractNeeded, OldPrograms, TablesInUse, UnknownRole, StoreUnavailable when the database is down.
    """
    async with _engine(url) as engine:
        if engine.dialect.name != POSTGRESQL:
            with translated():
                await _use_wal(engine)
        for attempt in range(LOCK_ATTEMPTS):
            if attempt:
                await asyncio.sleep(LOCK_PAUSE_SECONDS)
            with translated():
                try:
                    async with engine.execution_options(**{WRITES: True}).begin() as connection:
                        return await _upgrade(connection, run_role, contract=contract)
                except DBAPIError as error:
                    if not _waited_too_long(error):
                        raise
        raise TablesInUse("Other transactions held the tables for too long: nothing was changed. Try again.")


def _waited_too_long(error: DBAPIError) -> bool:
    return getattr(getattr(error.orig, "__cause__", None), "sqlstate", "") == LOCK_NOT_AVAILABLE


async def _grant(connection: AsyncConnection, role: str) -> None:
    if connection.dialect.name != POSTGRESQL:
        raise UnknownRole("SQLite has no roles: only PostgreSQL's are split.")
    try:
        await connection.run_sync(privileges.grant, role)
    except LookupError:
        raise UnknownRole("The role to run as must be there already, and be another one than this.") from None


async def standing(url: str) -> Standing:
    """How the database stands to this program. Raises StoreUnavailable when it is down."""
    async with _engine(url) as engine:
        with translated():
            async with engine.connect() as connection:
                return await connection.run_sync(_standing)


async def connections(url: str) -> dict[str, int]:
    """How many are open to a PostgreSQL database, besides this one, by the name that they gave themselves; of SQLite
    nobody knows. Raises StoreUnavailable."""
    async with _engine(url) as engine:
        with translated():
            async with engine.connect() as connection:
                return dict(await _connections(connection))


async def check(url: str) -> Standing:
    """Raises SchemaMismatch unless this program can run on the schema, StoreUnavailable when the database is down."""
    found = await standing(url)
    if found.refusal:
        raise SchemaMismatch(found.refusal)
    return found


def head_revision() -> str:
    """The revision that this program's migrations lead to."""
    return _scripts().get_current_head() or ""


async def _upgrade(connection: AsyncConnection, run_role: str, *, contract: bool) -> Standing:
    """One attempt, in the connection's transaction."""
    if connection.dialect.name == POSTGRESQL:
        await connection.execute(select(func.pg_advisory_xact_lock(UPGRADE_LOCK)))
        milliseconds = round(1000 * LOCK_TIMEOUT.total_seconds())
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = {milliseconds}")
    found = await connection.run_sync(_standing)
    if found.newer:
        if found.refusal:
            raise SchemaMismatch(found.refusal)
        return found  # the role keeps what a newer program has given it: this one doesn't know all the tables
    if steps := found.steps(contract=contract):
        if found.found is not None:
            await _refuse_old_programs(connection, steps)
        await connection.run_sync(_migrate, steps[-1].revision)
    if run_role:
        await _grant(connection, run_role)
    return await connection.run_sync(_standing)


async def _refuse_old_programs(connection: AsyncConnection, steps: tuple[Step, ...]) -> None:
    """Before a step that they could not bear. Raises OldPrograms."""
    oldest = max((step.oldest for step in steps if step.kind is not Kind.EXPAND), default=0)
    if oldest and (old := too_old(await _connections(connection), oldest)):
        raise OldPrograms(oldest, old)


async def _connections(connection: AsyncConnection) -> list[tuple[str, int]]:
    if connection.dialect.name != POSTGRESQL:
        return []
    return [(name, count) for name, count in await connection.execute(CONNECTIONS)]


def _migrate(connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


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


def _standing(connection: Connection) -> Standing:
    found, scripts = _revision(connection), _scripts()
    head = scripts.get_current_head() or ""
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        return Standing(found, head, newer=True)
    missing = [_step(script) for script in scripts.iterate_revisions(head, found or "base")]
    return Standing(found, head, tuple(reversed(missing)))


def _step(script: Script) -> Step:
    before = str(script.down_revision) if script.down_revision else None
    kind, version = compatibility.kind(before, script.revision), compatibility.version(script.revision)
    assert version is not None
    return Step(script.revision, kind, version.oldest, " ".join(script.doc.split()))


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "artstore_grpc.store:migrations")
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(VERSIONS))
    return config


@asynccontextmanager
async def _engine(url: str) -> AsyncIterator[AsyncEngine]:
    """No command timeout: a migration takes as long as it takes."""
    engine = make_engine(url, pool_size=1, connect_timeout=CONNECT_TIMEOUT, command_timeout=None)
    try:
        yield engine
    finally:
        await engine.dispose()
