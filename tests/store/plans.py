"""How a database goes about a statement."""

from __future__ import annotations

from sqlalchemy import text

from artstore_grpc.store.engine import SQLITE
from artstore_grpc.store.sql import SqlStore


async def plan_of(store: SqlStore, statement: object) -> str:
    engine = store._database._engine
    compiled = statement.compile(engine, compile_kwargs={"literal_binds": True})  # type: ignore[attr-defined]
    async with engine.connect() as connection:
        if store.dialect != SQLITE:
            await connection.execute(text("ANALYZE"))
        explain = "EXPLAIN QUERY PLAN" if store.dialect == SQLITE else "EXPLAIN"
        return "\n".join(str(row) for row in await connection.execute(text(f"{explain} {compiled}")))
