"""How many secrets are about to expire, or have: the last ones of accounts that are neither deleted nor suspended.

An account with another secret that lives on isn't counted: nothing of it stops when the older one ends. One that waits
to be delivered is no such secret, as nobody has it yet.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, func, literal, select

from artstore_grpc.model import SECRET_WARNING, RotationMode
from artstore_grpc.store.tables import Time, accounts, deliveries, secrets

LIVE = and_(accounts.c.delete_time.is_(None), ~accounts.c.suspended)
POLICY = accounts.c.rotation_policy
SHORT_LIVED = and_(
    func.coalesce(POLICY["mode"].as_string(), "") == RotationMode.SELF.value,
    func.coalesce(POLICY["schedule"].as_string(), "") != "",
)
"""Its secrets may live for hours, so that being near their end says nothing: the plan says when they are late."""
UNDELIVERED = select(deliveries.c.secret_id).where(deliveries.c.account_id == accounts.c.id).exists()


def soon(time: ColumnElement[datetime], now: datetime) -> ColumnElement[bool]:
    """Whether a time is within what is warned of beforehand."""
    return and_(time > literal(now, Time), time <= literal(now + SECRET_WARNING, Time))


def expiring(now: datetime) -> Select[int]:
    """Last secrets that expire within 7 days, by the index of accounts' last times alone."""
    last = accounts.c.secret_expire_time
    return select(func.count()).select_from(accounts).where(soon(last, now), LIVE, ~SHORT_LIVED, ~UNDELIVERED)


# Conditions rather than joins: SQLite would begin at the accounts, nearly all of which are live.


def expiring_undelivered(now: datetime) -> Select[int]:
    """As `expiring`, of the accounts whose newest secret waits to be delivered: few, and found by that."""
    others = and_(secrets.c.account_id == deliveries.c.account_id, secrets.c.id != deliveries.c.secret_id)
    last = select(func.max(secrets.c.expire_time)).where(others).scalar_subquery()
    whose = select(accounts.c.id).where(accounts.c.id == deliveries.c.account_id, LIVE, ~SHORT_LIVED)
    return select(func.count()).select_from(deliveries).where(whose.exists(), soon(last, now))


def expiring_late(now: datetime) -> Select[int]:
    """As `expiring`, of the accounts whose clients rotate by a schedule: secrets that were warned of."""
    warned = and_(secrets.c.warned, secrets.c.replace_time.is_(None), soon(secrets.c.expire_time, now))
    whose = select(accounts.c.id).where(accounts.c.id == secrets.c.account_id, LIVE, SHORT_LIVED)
    return select(func.count()).select_from(secrets).where(warned, whose.exists())


def expired(now: datetime) -> Select[int]:
    """`model.State.EXPIRED`: accounts whose last secret has expired, and that have no key or certificate either."""
    lasting = accounts.c.has_public_keys | (accounts.c.certificate_subject != "")
    over = accounts.c.secret_expire_time <= literal(now, Time)
    return select(func.count()).select_from(accounts).where(over, LIVE, ~lasting)


EXPIRING = (expiring, expiring_undelivered, expiring_late)
"""Which are disjoint, and together all that are about to expire."""
PENDING = select(func.count()).select_from(deliveries)
"""New secrets that wait to be delivered."""
