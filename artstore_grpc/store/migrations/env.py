"""Alembic's entry: runs the migrations on the connection that `store.schema` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from artstore_grpc.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
