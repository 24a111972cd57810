"""Whose client certificates authenticate an account (RFC 8705 §2.1)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("certificate_subject", sa.Text(), nullable=False, server_default=""))
