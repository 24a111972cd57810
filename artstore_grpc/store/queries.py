"""The reads that both a unit and the store make: accounts with their secrets, filters, keys.

An account and its secrets come from one statement, hence from one snapshot, and a page of accounts from one as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Integer,
    Select,
    String,
    Table,
    Tuple,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    union,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.operators import eq, ge, gt, le, lt

from artstore_grpc.model import AccountQuery, Comparison, Role, State
from artstore_grpc.store.engine import SQLITE
from artstore_grpc.store.rows import SECRET_PREFIX
from artstore_grpc.store.tables import Time, accounts, ledger, ledger_head, replays, secrets, signing_keys

ORDERINGS = {"<": lt, "<=": le, ">": gt, ">=": ge, "=": eq}

_SECRETS = [column.label(f"{SECRET_PREFIX}{column.name}") for column in secrets.c]
# Of two that were made in one microsecond the one that was replaced is the older.
_SECRETS_ORDER = (secrets.c.create_time.desc(), secrets.c.replace_time.is_not(None), secrets.c.id)


def _with_secrets(condition: ColumnElement[bool]) -> Select[Any]:
    joined = accounts.outerjoin(secrets, secrets.c.account_id == accounts.c.id)
    found = select(*accounts.c, *_SECRETS).select_from(joined).where(condition)
    return found.order_by(accounts.c.id, *_SECRETS_ORDER)


def _one_account(column: Column[str]) -> Select[Any]:
    return _with_secrets(column == bindparam("key"))


def _several_accounts(column: Column[str]) -> Select[Any]:
    return _with_secrets(column.in_(bindparam("keys", expanding=True)))


def _lock(column: Column[str]) -> Select[Any]:
    return select(accounts.c.id).where(column == bindparam("key")).with_for_update()


# Made once: to build such a statement costs more than to run it.
ACCOUNT_BY_ID, ACCOUNT_BY_CLIENT_ID = _one_account(accounts.c.id), _one_account(accounts.c.client_id)
"""The account of a `key`, joined to its secrets, the newest first."""

ACCOUNTS_BY_ID, ACCOUNTS_BY_CLIENT_ID = _several_accounts(accounts.c.id), _several_accounts(accounts.c.client_id)
"""Those of several `keys`, an account's rows side by side."""

_CLIENT_IDS: BindParameter[Any] = bindparam("client_ids", expanding=True)
_NAMES: BindParameter[Any] = bindparam("names", expanding=True)
RIVALS = union(
    select(accounts.c.id).where(accounts.c.client_id.in_(_CLIENT_IDS)),
    select(accounts.c.id).where(accounts.c.name.in_(_NAMES)),
    select(accounts.c.id).where(accounts.c.id.in_(_CLIENT_IDS)),
)
"""The ids of those that an account of one of these `client_ids` or `names` would be in the way of; an id may not be
another's client_id either. Three selects, an index each: for one with OR, PostgreSQL reads the table."""

IMPORTED_COST = select(func.max(func.substr(secrets.c.hash, 5, 2))).where(
    secrets.c.imported, secrets.c.expire_time > bindparam("now", type_=Time)
)
"""The cost in the hash of an imported secret, `$2b$12$…`, the highest of them; NULL without any."""

LOCKS = {ACCOUNT_BY_ID: _lock(accounts.c.id), ACCOUNT_BY_CLIENT_ID: _lock(accounts.c.client_id)}
"""What locks the account that each of these finds."""

REFUSED_ACCOUNTS = select(
    accounts.c.id, accounts.c.suspended, accounts.c.delete_time, accounts.c.epoch, accounts.c.epoch_time
).where(
    or_(
        accounts.c.suspended,
        accounts.c.delete_time.is_not(None),
        accounts.c.epoch_time > bindparam("epoch_since", type_=Time),
    )
)
"""The accounts whose tokens verifiers refuse, all of them or the older ones."""

HEAD = select(ledger_head.c.sequence, ledger_head.c.hash)

LEDGER_PAGE = (
    select(ledger)
    .where(ledger.c.sequence > bindparam("after"))
    .order_by(ledger.c.sequence)
    .limit(bindparam("at_most", type_=Integer))
)
"""At most `at_most` rows with a sequence greater than `after`, in order."""


def account_page(query: AccountQuery, now: datetime, dialect: str) -> Select[Any]:
    """A page of accounts joined to their secrets, by a keyset on (create_time, id).

    Raises ValueError for a comparison that `artstore_grpc.filters` would have refused.
    """
    order = (accounts.c.create_time, accounts.c.id)
    conditions = [_condition(comparison, now, dialect) for comparison in query.comparisons]
    if not query.show_deleted:
        conditions.append(accounts.c.delete_time.is_(None))
    if query.after:
        conditions.append(tuple_(*order) > _position(*query.after))
    return page_of(conditions, order, query.limit)


def due_page(through: datetime, limit: int, after: tuple[datetime, str] | None) -> Select[Any]:
    """Accounts joined to their secrets whose `due_time` is not after a time, by a keyset on (due_time, id)."""
    order = (accounts.c.due_time, accounts.c.id)
    conditions: list[ColumnElement[bool]] = [accounts.c.due_time <= literal(through, Time)]
    if after:
        conditions.append(tuple_(*order) > _position(*after))
    return page_of(conditions, order, limit)


def page_of(conditions: Sequence[ColumnElement[bool]], order: tuple[Column[Any], ...], limit: int) -> Select[Any]:
    """The first accounts of an order that meet the conditions, joined to their secrets."""
    page = select(accounts).where(true(), *conditions).order_by(*order).limit(limit).subquery()
    joined = page.outerjoin(secrets, secrets.c.account_id == page.c.id)
    rows = select(*page.c, *_SECRETS).select_from(joined)
    return rows.order_by(*(page.c[column.name] for column in order), *_SECRETS_ORDER)


def replay_by_key(key: bytes) -> Select[Any]:
    return select(replays).where(replays.c.key == key)


def all_signing_keys() -> Select[Any]:
    return select(signing_keys).order_by(signing_keys.c.create_time, signing_keys.c.kid)


def padded(keys: Sequence[str]) -> list[str]:
    """Keys up to the next power of two, the last one repeated: each number of keys is a statement of its own, which the
    drivers would prepare anew."""
    wanted = 1 << (len(keys) - 1).bit_length()
    return [*keys, *([keys[-1]] * (wanted - len(keys)))] if keys else []


def insert_into(table: Table, dialect: str) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that may say ON CONFLICT, which both dialects can, but each by its own class."""
    return sqlite.insert(table) if dialect == SQLITE else postgresql.insert(table)


def _position(time: datetime, id: str) -> Tuple:
    """The types are named, since the values alone don't say how each dialect stores a time."""
    return tuple_(literal(time, Time), literal(id, String))


def _condition(comparison: Comparison, now: datetime, dialect: str) -> ColumnElement[bool]:
    field, operator, value = comparison.field, comparison.operator, comparison.value
    if field == "secret_expire_time" and isinstance(value, datetime) and operator in ORDERINGS:
        return ORDERINGS[operator](accounts.c.secret_expire_time, value)  # type: ignore[no-any-return]
    if field == "name" and operator == ":" and isinstance(value, str):
        return _contains(value, dialect)
    if operator in ("=", "!=") and isinstance(value, str):
        equal = _equal(field, value, now)
        return equal if operator == "=" else ~equal
    raise ValueError(f"accounts cannot be filtered by {field} {operator}")


def _equal(field: str, value: str, now: datetime) -> ColumnElement[bool]:
    """A condition that is never NULL, so that its opposite may be asked for too."""
    if field == "role":
        return accounts.c.role == Role(value)
    if field == "name":
        return accounts.c.name == value
    if field == "state":
        return _in_state(State(value), now)
    raise ValueError(f"accounts cannot be filtered by {field} for equality")


def _in_state(state: State, now: datetime) -> ColumnElement[bool]:
    """`model.Account.state` as SQL."""
    present = accounts.c.delete_time.is_(None)
    running = and_(present, ~accounts.c.suspended)
    expires, lasting = (
        accounts.c.secret_expire_time,
        or_(accounts.c.has_public_keys, accounts.c.certificate_subject != ""),
    )
    return {
        State.DELETED: ~present,
        State.SUSPENDED: and_(present, accounts.c.suspended),
        State.EXPIRED: and_(running, ~lasting, expires.is_not(None), expires <= now),
        State.ACTIVE: and_(running, or_(lasting, expires.is_(None), expires > now)),
    }[state]


def _contains(text: str, dialect: str) -> ColumnElement[bool]:
    """Case-sensitive in both dialects, and without wildcards: LIKE is neither (SQLite's folds ASCII letters)."""
    position = func.instr if dialect == SQLITE else func.strpos
    return position(accounts.c.name, text) > 0
