"""The ledger by kind, subject and actor, checkpoints by their rows: what is asked for costs what it finds, however long
the ledger is."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in ("kind", "subject", "actor"):
        op.create_index(op.f(f"ix_ledger_{column}_sequence"), "ledger", [column, "sequence"])
    op.create_index(op.f("ix_checkpoints_sequence_number"), "checkpoints", ["sequence", "number"])
