"""What a database is like to the role that asks: facts for a checkup, without a change to anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from artstore_grpc.store.engine import POSTGRESQL, Database, normalised

TIMEOUT = timedelta(seconds=5)

FACTS = text(
    "SELECT clock_timestamp() AS time,"
    " inet_server_addr() IS NULL OR host(inet_server_addr()) IN ('127.0.0.1', '::1') AS near,"
    " coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS encrypted,"
    " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,"
    " has_schema_privilege(current_schema(), 'CREATE') AS alters,"
    " to_regclass('ledger') IS NOT NULL AND has_table_privilege('ledger', 'UPDATE, DELETE, TRUNCATE') AS rewrites"
)


@dataclass(frozen=True, slots=True)
class DatabaseCondition:
    """PostgreSQL as its role sees it. `time` is the server's, between `asked` and `answered` by this machine's clock;
    `near`: on this machine; `alters`: the role may make tables; `rewrites`: it may change rows of the ledger."""

    asked: datetime
    time: datetime
    answered: datetime
    near: bool
    encrypted: bool
    superuser: bool
    alters: bool
    rewrites: bool


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite; None for PostgreSQL."""
    parsed = normalised(url)
    return None if parsed.drivername.startswith(POSTGRESQL) else Path(parsed.database or "")


async def condition(url: str) -> DatabaseCondition:
    """Of a PostgreSQL. Raises StoreUnavailable."""
    database = Database(url, pool_size=1, connect_timeout=TIMEOUT, command_timeout=TIMEOUT)
    try:
        await database.rows(text("SELECT 1"))  # the connection isn't timed
        asked = datetime.now(UTC)
        (found,) = await database.rows(FACTS)
        facts: dict[str, Any] = dict(found._mapping)
        return DatabaseCondition(asked=asked, answered=datetime.now(UTC), **facts)
    finally:
        await database.close()
