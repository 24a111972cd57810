"""Trust that moves: the life of signing keys, wrapped keys, checkpoints, keys of accounts, used assertions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

A_DAY = "86400"
"""The longest life that a setting could give to tokens when keys did not say what theirs had."""


def upgrade() -> None:
    _accounts()
    _signing_keys()
    op.create_index(op.f("ix_revocations_account_id"), "revocations", ["account_id"])
    op.create_table(
        "assertions",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("expire_time", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_assertions")),
    )
    op.create_index(op.f("ix_assertions_expire_time"), "assertions", ["expire_time"])
    _ledger_keys()
    op.create_table(
        "wrapped_keys",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("kek_id", sa.Text(), nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_wrapped_keys")),
    )


def _accounts() -> None:
    op.add_column("accounts", sa.Column("epoch_time", TIME))
    op.add_column("accounts", sa.Column("public_keys", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("accounts", sa.Column("has_public_keys", sa.Boolean(), nullable=False, server_default=sa.false()))


def _signing_keys() -> None:
    op.add_column("signing_keys", sa.Column("retire_time", TIME))
    lifetime = sa.Column("token_lifetime_seconds", sa.Integer(), nullable=False, server_default=A_DAY)
    op.add_column("signing_keys", lifetime)


def _ledger_keys() -> None:
    op.create_table(
        "ledger_keys",
        sa.Column("kid", sa.String(length=128), nullable=False),
        sa.Column("public_jwk", sa.JSON(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("create_time", TIME, nullable=False),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_ledger_keys")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("number", SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("time", TIME, nullable=False),
        sa.Column("kid", sa.String(length=128), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_checkpoints")),
    )
