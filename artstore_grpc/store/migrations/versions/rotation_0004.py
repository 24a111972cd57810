"""How an account's secret is rotated and when to look at it next; new secrets on their way to a sink; which hosts use
each secret, and which of them were imported."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("accounts", sa.Column("rotation_policy", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("secrets", sa.Column("imported", sa.Boolean(), nullable=False, server_default=sa.false()))
    # SQLite uses a partial index only where the query says the same words.
    sqlite, postgresql = sa.text("imported = 1"), sa.text("imported")
    op.create_index("ix_secrets_imported", "secrets", ["expire_time"], sqlite_where=sqlite, postgresql_where=postgresql)
    for column in ("next_rotate_time", "told_expire_time", "due_time"):
        op.add_column("accounts", sa.Column(column, TIME))
    # Every account that there is gets looked at once, and so its own time.
    op.execute("UPDATE accounts SET due_time = update_time")
    op.create_index(op.f("ix_accounts_due_time_id"), "accounts", ["due_time", "id"])
    op.add_column("secrets", sa.Column("replace_time", TIME))
    op.add_column("secrets", sa.Column("warned", sa.Boolean(), nullable=False, server_default=sa.false()))
    # In the very words of the query: SQLite takes a partial index for no others.
    sqlite, postgresql = sa.text("warned = 1"), sa.text("warned")
    op.create_index("ix_secrets_warned", "secrets", ["expire_time"], sqlite_where=sqlite, postgresql_where=postgresql)
    _create_secret_uses()
    _create_deliveries()


def _create_secret_uses() -> None:
    op.create_table(
        "secret_uses",
        sa.Column("secret_id", sa.String(64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.ForeignKeyConstraint(["secret_id"], ["secrets.id"], name=op.f("fk_secret_uses_secret_id")),
        sa.PrimaryKeyConstraint("secret_id", "source", name=op.f("pk_secret_uses")),
    )


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("account_id", sa.String(36), nullable=False),
        sa.Column("secret_id", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.Column("give_up_time", TIME, nullable=False),
        sa.Column("next_attempt_time", TIME, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_deliveries_account_id")),
        sa.ForeignKeyConstraint(["secret_id"], ["secrets.id"], name=op.f("fk_deliveries_secret_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("secret_id", name=op.f("uq_deliveries_secret_id")),
    )
