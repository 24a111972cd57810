"""What a driver's exception means to a use case: StoreUnavailable, Conflict, or a defect that is left as it is.

SQLAlchemy wraps only part of what asyncpg raises: refusals while connecting and timeouts come bare.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy import PrimaryKeyConstraint, Table, UniqueConstraint, exc

from artstore_grpc.errors import Conflict, MissingPrivilege, StoreUnavailable
from artstore_grpc.store.tables import metadata

UNIQUE_VIOLATION = "23505"
"""SQLSTATE `unique_violation` (PostgreSQL manual, appendix A)."""

INSUFFICIENT_PRIVILEGE = "42501"
"""SQLSTATE `insufficient_privilege`: the service's role is kept from what it needn't do (privileges.py)."""

SQLITE_UNIQUE = "UNIQUE constraint failed: "
"""How SQLite begins what it says of a unique constraint; the columns follow, the constraint's name doesn't."""

DEFECTS = (exc.ProgrammingError, exc.DataError, exc.NotSupportedError)
"""Wrong statements or values: trying again cannot help, so they must not look like an outage."""


@contextmanager
def translated() -> Iterator[None]:
    """Around calls of the driver only, never around a use case's code, whose own TimeoutError means something else."""
    try:
        yield
    except exc.IntegrityError as error:
        name = _violated(error)
        if name is None:
            raise
        raise Conflict(name) from error
    except DEFECTS as error:
        if getattr(getattr(error.orig, "__cause__", None), "sqlstate", "") == INSUFFICIENT_PRIVILEGE:
            raise MissingPrivilege("The database's role may not do this: it wants the role that migrates.") from error
        raise
    except (exc.DBAPIError, exc.TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # OSError includes TimeoutError: a refused connection, a missing socket, a timeout of a command.
        raise StoreUnavailable(f"The database is not reachable, or too slow: {type(error).__name__}.") from error


def _violated(error: exc.IntegrityError) -> str | None:
    """The unique constraint's name; None when another kind of constraint refused."""
    driver = getattr(error.orig, "__cause__", None)
    if isinstance(driver, asyncpg.PostgresError):
        return driver.constraint_name if driver.sqlstate == UNIQUE_VIOLATION else None
    message = str(error.orig)
    if not message.startswith(SQLITE_UNIQUE):
        return None
    return _SQLITE_NAMES.get(message.removeprefix(SQLITE_UNIQUE))


def _unique(table: Table) -> Iterator[tuple[str, str]]:
    for constraint in table.constraints:
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint):
            yield ", ".join(f"{table.name}.{column.name}" for column in constraint.columns), str(constraint.name)


_SQLITE_NAMES = {columns: name for table in metadata.tables.values() for columns, name in _unique(table)}
