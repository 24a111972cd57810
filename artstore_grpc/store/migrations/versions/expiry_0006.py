"""When accounts' last secrets expire, by an index: counted every half minute, for the metrics."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        op.f("ix_accounts_delete_time_secret_expire_time"), "accounts", ["delete_time", "secret_expire_time"]
    )
