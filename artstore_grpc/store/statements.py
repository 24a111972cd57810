"""What a statement is called in a trace: what it does and to which table, never its text and never a value."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Executable

from artstore_grpc.spans import NOTHING, Span, recorded, span

OPERATIONS = {
    "select": "SELECT",
    "compound_select": "SELECT",
    "insert": "INSERT",
    "update": "UPDATE",
    "delete": "DELETE",
}


def statement_span(statement: Executable, dialect: str) -> AbstractContextManager[Span | None]:
    """The part of a call that a statement takes, the wait for a connection included where it is a single read."""
    if not recorded():
        return NOTHING
    operation = OPERATIONS.get(getattr(statement, "__visit_name__", ""), "statement")
    table = table_of(statement)
    attributes = {"db.system.name": dialect, "db.operation.name": operation}
    if table:
        attributes["db.collection.name"] = table
    summary = f"{operation} {table}".rstrip()
    return span(summary, attributes | {"db.query.summary": summary}, client=True)


def table_of(statement: Any) -> str:
    """The table that a statement changes, or reads first; empty where it has none."""
    if hasattr(statement, "table"):
        return str(statement.table.name)
    for each in getattr(statement, "selects", (statement,)):
        for source in each.get_final_froms() if hasattr(each, "get_final_froms") else ():
            while hasattr(source, "left"):
                source = source.left
            return str(getattr(source, "name", ""))
    return ""
