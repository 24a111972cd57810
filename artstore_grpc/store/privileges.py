"""What the role that the service runs as may do to each table, where another role migrates (PostgreSQL).

Least power: it reads and writes rows, and changes no table. Of the ledger it can only append: rows that are there it
can neither alter nor delete, so that whoever takes over a process can't either. An archive, which deletes rows, is run
by the role that migrates.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, text

READ, APPEND = "SELECT", "SELECT, INSERT"
WRITE = "SELECT, INSERT, UPDATE, DELETE"

PRIVILEGES: dict[str, str] = {
    "accounts": WRITE,
    "secrets": WRITE,
    "secret_uses": WRITE,
    "deliveries": WRITE,
    "signing_keys": WRITE,
    "revocations": WRITE,
    "assertions": WRITE,
    "replays": WRITE,
    "leases": WRITE,
    "wrapped_keys": "SELECT, INSERT, UPDATE",
    "ledger": APPEND,
    "ledger_head": "SELECT, UPDATE",
    "ledger_keys": APPEND,
    "checkpoints": APPEND,
    "alembic_version": READ,
}
"""By table; whatever isn't granted here is taken away."""


def grants(role: str, schema: str) -> Iterator[str]:
    """The statements that give a role exactly that; both names are quoted already."""
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role}"
    yield f"REVOKE CREATE ON SCHEMA {schema} FROM {role}"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {role}"
    for table, privileges in PRIVILEGES.items():
        yield f"GRANT {privileges} ON TABLE {schema}.{table} TO {role}"


def grant(connection: Connection, role: str) -> None:
    """Carries them out in the schema that the tables are in. Raises LookupError for a role that there isn't, and for
    the one that is connected: its own tables are its own."""
    known, own, schema = connection.execute(
        text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role), current_user = :role, current_schema()"),
        {"role": role},
    ).one()
    if not known or own:
        raise LookupError(role)
    quote = connection.dialect.identifier_preparer.quote_identifier
    for statement in grants(quote(role), quote(schema)):
        connection.exec_driver_sql(statement)
