"""How the store talks to its database: URLs, connections, transactions and timeouts. Knows of no table.

SQLite: a file in WAL mode. `synchronous` is FULL: SQLite syncs the log at each commit, so that what was acknowledged
survives the process being killed and the machine losing power. NORMAL would survive the former only, and a revocation
that comes back to life is worth more than the milliseconds, since nothing is written per token.

PostgreSQL: asyncpg gets the URL as it was given, so that every libpq parameter works (`sslmode`, `host=/folder`,
several hosts). Reads run in autocommit, which saves two of three round trips.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import URL, Connection, CursorResult, Executable, Row, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import ArgumentError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.spans import span
from artstore_grpc.store.compatibility import PROGRAM
from artstore_grpc.store.connections import Connections
from artstore_grpc.store.faults import translated
from artstore_grpc.store.statements import statement_span

SQLITE = "sqlite"
POSTGRESQL = "postgresql"

DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}

T = TypeVar("T")

Step = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]
"""How one awaited step of a writing transaction is carried out."""

WRITES = "artstore_writes"
"""The execution option of connections whose transactions write."""

FILE_MODE = 0o600
"""A new SQLite file is its owner's only: it holds hashes and sealed keys. SQLite gives `-wal` and `-shm` its mode."""


def normalised(url: str) -> URL:
    """The URL with the driver that this program uses.

    Raises ValueError, which never repeats the URL (it may hold a password), for any but a SQLite file and PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in DRIVERS:
        raise ValueError("the database's URL must begin with sqlite:/// or postgresql://") from None
    if parsed.drivername.startswith(SQLITE) and parsed.database in (None, "", ":memory:"):
        raise ValueError("the database's URL must name a file: sqlite:///path")
    return parsed.set(drivername=DRIVERS[parsed.drivername])


class Transaction:
    """A transaction that writes. Once a statement of it has failed it can only roll back, whoever caught the error:
    PostgreSQL would answer the COMMIT with a silent rollback, SQLite would commit the rest."""

    def __init__(self, connection: AsyncConnection, step: Step, dialect: str) -> None:
        self._connection = connection
        self._dialect = dialect
        self._step = step
        self._failure: Exception | None = None

    async def execute(self, statement: Executable, parameters: Any = None) -> CursorResult[Any]:
        """Raises StoreUnavailable and Conflict, and after that the same again."""
        self.check()
        try:
            with translated(), statement_span(statement, self._dialect):
                result: CursorResult[Any] = await self._step(self._connection.execute(statement, parameters))
                return result
        except Exception as error:
            self.fail(error)
            raise

    def fail(self, error: Exception) -> None:
        """Makes this transaction one that rolls back."""
        self._failure = error

    def check(self) -> None:
        """Raises what failed before, if anything did."""
        if self._failure is not None:
            raise self._failure

    async def rows(self, statement: Executable, parameters: Any = None) -> Sequence[Row[Any]]:
        return (await self.execute(statement, parameters)).all()

    async def value(self, statement: Executable) -> Any:
        """The first column of the first row; None when there is none."""
        return (await self.execute(statement)).scalar()


class Database:
    """A pool of connections. Making one doesn't connect; one belongs to one event loop."""

    def __init__(self, url: str, *, pool_size: int, connect_timeout: timedelta, command_timeout: timedelta) -> None:
        self._timeout = command_timeout.total_seconds()
        self._engine = make_engine(
            url, pool_size=pool_size, connect_timeout=connect_timeout, command_timeout=command_timeout
        )
        self.connections = Connections(self._engine)
        self.dialect = self._engine.dialect.name
        autocommit = {"isolation_level": "AUTOCOMMIT"} if self.dialect == POSTGRESQL else {}
        self._reads = self._engine.execution_options(**autocommit)
        self._writes = self._engine.execution_options(**{WRITES: True})
        self._turn = asyncio.Lock()
        self._step: Step = whole if self.dialect == SQLITE else cancellable

    async def rows(self, statement: Executable, parameters: Any = None) -> Sequence[Row[Any]]:
        """A single read of committed data, without a transaction. Raises StoreUnavailable."""
        with translated(), statement_span(statement, self.dialect):
            async with self.connections.taken(self._reads.connect()) as connection:
                return (await connection.execute(statement, parameters)).all()

    async def row(self, statement: Executable) -> Row[Any] | None:
        """The first row of a single read; None when there is none."""
        return next(iter(await self.rows(statement)), None)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Commits at the end, rolls back on any exception, a cancellation included. Raises StoreUnavailable.

        On SQLite it takes the file's write lock at once (BEGIN IMMEDIATE): a reader that turns writer halfway would
        fail whenever another process wrote in between.
        """
        with span("transaction", {"db.system.name": self.dialect}):
            async with self._writer_turn(), self._connection() as connection:
                with translated():
                    await self._step(connection.begin().start())
                    if self.dialect == POSTGRESQL:
                        # A replica that freezes here must not hold its locks, the ledger's head above all, for ever.
                        limit = f"SET LOCAL idle_in_transaction_session_timeout = {round(2000 * self._timeout)}"
                        await connection.exec_driver_sql(limit)
                transaction = Transaction(connection, self._step, self.dialect)
                yield transaction
                transaction.check()
                with translated(), span("COMMIT", {"db.system.name": self.dialect}, client=True):
                    await self._step(connection.commit())

    async def close(self) -> None:
        """Closes every connection that is not in use; never raises for a database that is down."""
        with suppress(Exception):
            await self._engine.dispose()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection that always goes back to the pool, rolled back, or out of it."""
        connection = self._writes.connect()
        try:
            with translated():
                await self.connections.waited(self._step(connection.start()))
            yield connection
        except BaseException:
            # The first exception is the one that counts; the pool itself drops a connection that can't roll back.
            with suppress(Exception):
                await asyncio.shield(connection.close())
            raise
        with translated():
            await asyncio.shield(connection.close())

    @asynccontextmanager
    async def _writer_turn(self) -> AsyncIterator[None]:
        """SQLite has one writer: those of this process queue here, in order, rather than poll for the file's lock."""
        if self.dialect != SQLITE:
            yield
            return
        try:
            async with asyncio.timeout(self._timeout):
                await self._turn.acquire()
        except TimeoutError as error:
            raise StoreUnavailable("The database is too slow: writers are queueing.") from error
        try:
            yield
        finally:
            self._turn.release()


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """One step of a writing transaction on SQLite: a cancellation waits for its end, which the busy timeout bounds.

    Given up in the middle, its statement would keep the connection alive, and with it the file's write lock, until the
    garbage collector came by (sqlite.org/c3ref/close.html, zombies).
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():  # a second cancellation changes nothing
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # looked at; the cancellation is what the caller hears of
        raise


async def cancellable(work: Coroutine[Any, Any, T]) -> T:
    """One step on PostgreSQL: the server is told of a cancellation, and ends what it was doing."""
    return await work


def make_engine(
    url: str, *, pool_size: int, connect_timeout: timedelta, command_timeout: timedelta | None
) -> AsyncEngine:
    """An engine for either dialect; without a `command_timeout` statements may take for ever."""
    parsed = normalised(url)
    # hide_parameters: an exception that quotes a statement's parameters brings hashes to wherever it is printed.
    pool = {
        "pool_size": pool_size,
        "max_overflow": 0,
        "pool_timeout": connect_timeout.total_seconds(),
        "hide_parameters": True,
    }
    make = _sqlite_engine if parsed.drivername.startswith(SQLITE) else _postgresql_engine
    engine = make(parsed, connect_timeout, command_timeout, pool)
    event.listen(engine.sync_engine, "handle_error", _drop_timed_out)
    return engine


def _sqlite_engine(
    url: URL, _connect_timeout: timedelta, command_timeout: timedelta | None, pool: dict[str, Any]
) -> AsyncEngine:
    busy = command_timeout.total_seconds() if command_timeout else 3600.0
    # isolation_level None: the driver begins nothing by itself, `_begin` does.
    engine = create_async_engine(url, connect_args={"isolation_level": None, "timeout": busy}, **pool)
    event.listen(engine.sync_engine, "do_connect", _create_file)
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _postgresql_engine(
    url: URL, connect_timeout: timedelta, command_timeout: timedelta | None, pool: dict[str, Any]
) -> AsyncEngine:
    address = url.set(drivername=POSTGRESQL).render_as_string(hide_password=False)
    command_seconds = command_timeout.total_seconds() if command_timeout else None

    async def connect() -> Any:
        return await asyncpg.connect(
            address,
            timeout=connect_timeout.total_seconds(),
            command_timeout=command_seconds,
            server_settings=names(url),
        )

    engine = create_async_engine(url, async_creator=connect, isolation_level="READ COMMITTED", **pool)
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def names(url: URL) -> dict[str, str]:
    """What PostgreSQL is to call a connection: the program first, by which an upgrade knows it (schema.py), then what
    the URL asks for, if it does. 63 bytes of it are kept."""
    given = url.query.get("application_name", "")
    return {"application_name": f"{PROGRAM}: {given}" if given else PROGRAM}


def _create_file(_dialect: Any, _record: Any, arguments: list[Any], _options: dict[str, Any]) -> None:
    # Never opened when it exists: closing a file drops every POSIX lock that this process holds on it, SQLite's too,
    # and another process would take itself for the last one and delete the log (sqlite.org/howtocorrupt.html §2.2).
    with suppress(FileExistsError):
        os.close(os.open(arguments[0], os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))


def _set_pragmas(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _refuse_closed(connection: Any, _record: Any, _proxy: Any) -> None:
    """Heals without an error: a restarted server has closed its ends, so the pool connects anew before it is used."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


def _drop_timed_out(context: ExceptionContext) -> None:
    """A connection whose command timed out may be in the middle of anything; the other connections may be fine."""
    if isinstance(context.original_exception, TimeoutError):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
