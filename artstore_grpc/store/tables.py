"""The tables, for SQLite and PostgreSQL alike: names, types, constraints, indexes. No queries.

Every constraint has a name, since errors are told apart by it (`errors.Conflict.constraint`) and a later migration must
be able to drop it. A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

from artstore_grpc.model import KeyState, Role

A_DAY = "86400"
"""The longest that a setting lets a token live, for keys that were made before this was written down."""

HEAD_ID = 1
"""The primary key of the only row of `ledger_head`."""


class Time(TypeDecorator[datetime]):
    """An aware UTC time with microseconds: TIMESTAMPTZ in PostgreSQL, sortable text without an offset in SQLite.

    Refuses naive times with ValueError: a driver would take them for local ones.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(DateTime(timezone=dialect.name == "postgresql"))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a stored time must be aware")
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _choice(members: type[StrEnum], name: str) -> Enum:
    """An enumeration as text with a CHECK: a new member is one ALTER, in both dialects."""
    return Enum(
        members,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda enumeration: [str(member) for member in enumeration],
    )


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("client_id", String(255), nullable=False),
    Column("name", String(200), nullable=False),
    Column("description", String(500), nullable=False),
    Column("role", _choice(Role, "role"), nullable=False),
    Column("rate_limit", Integer, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("audiences", JSON, nullable=False),
    Column("served_audiences", JSON, nullable=False),
    Column("introspection_only", Boolean, nullable=False),
    Column("is_system", Boolean, nullable=False),
    Column("suspended", Boolean, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    Column("delete_time", Time),
    Column("version", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    # The latest of the secrets' expire times, kept here so that a filter on it or on the state is one table's.
    Column("secret_expire_time", Time),
    Column("epoch_time", Time),
    Column("public_keys", JSON, nullable=False, server_default="[]"),
    # Whether there are any: a filter on the state asks, since an account with a key does not expire.
    Column("has_public_keys", Boolean, nullable=False, server_default=false()),
    Column("rotation_policy", JSON, nullable=False, server_default="{}"),
    Column("next_rotate_time", Time),
    Column("told_expire_time", Time),
    # When to look next for what happens by itself (rotations.py); written with every change of the account.
    Column("due_time", Time),
    Column("certificate_subject", Text, nullable=False, server_default=""),
    UniqueConstraint("client_id"),
    # Deleted accounts keep their names until they are purged, so that undelete cannot collide.
    UniqueConstraint("name"),
    Index(None, "create_time", "id"),
    Index(None, "delete_time"),
    Index(None, "due_time", "id"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("account_id", String(36), ForeignKey("accounts.id"), nullable=False),
    Column("hash", String(128), nullable=False),
    Column("tag", LargeBinary),
    Column("create_time", Time, nullable=False),
    Column("expire_time", Time, nullable=False),
    Column("last_used_time", Time),
    Column("last_used_source", Text, nullable=False),
    Column("imported", Boolean, nullable=False, server_default=false()),
    Column("replace_time", Time),
    Column("warned", Boolean, nullable=False, server_default=false()),
    Index(None, "account_id"),
    # Of those that were imported alone: a start asks whether there are any, however many others there are.
    Index("ix_secrets_imported", "expire_time", postgresql_where=text("imported"), sqlite_where=text("imported = 1")),
)
# Few at any time, of however many secrets: those that were warned of.
Index(
    "ix_secrets_warned",
    secrets.c.expire_time,
    sqlite_where=secrets.c.warned,
    postgresql_where=secrets.c.warned,
)

# Which hosts used a secret lately: the latest few of each.
secret_uses = Table(
    "secret_uses",
    metadata,
    Column("secret_id", String(64), ForeignKey("secrets.id"), primary_key=True),
    Column("source", Text, primary_key=True),
    Column("time", Time, nullable=False),
)

# New secrets that wait to reach a sink, sealed; at most one of an account.
deliveries = Table(
    "deliveries",
    metadata,
    Column("account_id", String(36), ForeignKey("accounts.id"), primary_key=True),
    Column("secret_id", String(64), ForeignKey("secrets.id"), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("give_up_time", Time, nullable=False),
    Column("next_attempt_time", Time, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text, nullable=False),
    UniqueConstraint("secret_id"),
)

# On SQLite, INTEGER PRIMARY KEY is the row's own id; BIGINT would be a second index.
Sequence = BigInteger().with_variant(Integer(), "sqlite")

ledger = Table(
    "ledger",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=False),
    Column("time", Time, nullable=False),
    Column("actor", Text, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    # What auditors ask for, each page in the order of the sequence.
    Index(None, "kind", "sequence"),
    Index(None, "subject", "sequence"),
    Index(None, "actor", "sequence"),
)

ledger_head = Table(
    "ledger_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    CheckConstraint(f"id = {HEAD_ID}", name="one_row"),
)

revocations = Table(
    "revocations",
    metadata,
    Column("jti", String(255), primary_key=True),
    Column("account_id", String(36), nullable=False),
    Column("expire_time", Time, nullable=False),
    Index(None, "expire_time"),
    Index(None, "account_id"),
)

# The `jti`s of client assertions that were used, by a digest of account and `jti`.
assertions = Table(
    "assertions",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("expire_time", Time, nullable=False),
    Index(None, "expire_time"),
)

replays = Table(
    "replays",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    # Not a foreign key: the key outlives what it answered, so that a late retry is told that it was carried out.
    Column("account_id", String(36), nullable=False),
    Column("create_time", Time, nullable=False),
    Column("sealed", LargeBinary),
    Index(None, "account_id"),
    Index(None, "create_time"),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("holder", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("expire_time", Time, nullable=False),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", String(128), primary_key=True),
    Column("algorithm", String(16), nullable=False),
    Column("public_jwk", JSON, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("state", _choice(KeyState, "state"), nullable=False),
    Column("create_time", Time, nullable=False),
    Column("activate_time", Time),
    Column("retire_time", Time),
    Column("token_lifetime_seconds", Integer, nullable=False, server_default=A_DAY),
)

ledger_keys = Table(
    "ledger_keys",
    metadata,
    Column("kid", String(128), primary_key=True),
    Column("public_jwk", JSON, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("create_time", Time, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("number", Sequence, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("time", Time, nullable=False),
    Column("kid", String(128), nullable=False),
    Column("signature", Text, nullable=False),
    Index(None, "sequence", "number"),
)

wrapped_keys = Table(
    "wrapped_keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("kek_id", Text, nullable=False),
    Column("create_time", Time, nullable=False),
)
