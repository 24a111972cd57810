"""How many secrets are about to expire, or have: the last ones of accounts that are neither deleted nor suspended.

An account with another secret that lives on isn't counted: nothing of it stops when the older one ends. One that waits
to be delivered is no such secret, as nobody has it yet.

What was warned of is found by the index of warnings. What wasn't yet, because nothing does what is due, is found among
the accounts that it is time to look at: a warning that is missing is due (rotations.py). So nothing is read that isn't
nearly always counted, and no secret is missed because whoever warns is stuck.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select

from artstore_grpc.model import SECRET_WARNING, RotationMode
from artstore_grpc.store.tables import Time, accounts, deliveries, secrets

OTHERS = secrets.alias("others")

# Not by `delete_time` itself: SQLite would take that's index for the best, and read every account.
LIVE = and_(func.coalesce(accounts.c.delete_time, accounts.c.delete_time).is_(None), ~accounts.c.suspended)
LASTING = or_(accounts.c.has_public_keys, accounts.c.certificate_subject != "")
POLICY = accounts.c.rotation_policy
SHORT_LIVED = and_(
    func.coalesce(POLICY["mode"].as_string(), "") == RotationMode.SELF.value,
    func.coalesce(POLICY["schedule"].as_string(), "") != "",
)
"""Its secrets may live for hours, so that being near their end says nothing: they are late when they are warned of."""
DELIVERED = ~select(deliveries.c.secret_id).where(deliveries.c.secret_id == secrets.c.id).correlate(secrets).exists()
OWNER = accounts.c.id == secrets.c.account_id
PENDING = select(func.count()).select_from(deliveries)
"""New secrets that wait to be delivered."""


def soon(now: datetime) -> ColumnElement[bool]:
    """Whether a secret's end is within what is warned of beforehand, and it has no successor that anybody has."""
    time = secrets.c.expire_time
    within = and_(time > literal(now, Time), time <= literal(now + SECRET_WARNING, Time))
    return and_(within, secrets.c.replace_time.is_(None), DELIVERED)


def looked_at(by: datetime) -> ColumnElement[bool]:
    """Whether it is time to look at an account, by then."""
    return accounts.c.due_time <= literal(by, Time)


def expiring_warned(now: datetime) -> Select[int]:
    """Last secrets that expire within 7 days, of those that were warned of."""
    whose = select(accounts.c.id).where(OWNER, LIVE).exists()
    return select(func.count()).select_from(secrets).where(secrets.c.warned, soon(now), whose)


def expiring_unwarned(now: datetime, by: datetime) -> Select[int]:
    """As `expiring_warned`, of those that were not yet, where it is time to look by then."""
    undelivered = select(deliveries.c.secret_id).where(deliveries.c.secret_id == OTHERS.c.id).correlate(OTHERS).exists()
    later = and_(OTHERS.c.account_id == accounts.c.id, OTHERS.c.expire_time > secrets.c.expire_time, ~undelivered)
    last = ~select(OTHERS.c.id).where(later).correlate(accounts, secrets).exists()
    ends = select(secrets.c.id).where(OWNER, ~secrets.c.warned, soon(now), last).exists()
    return select(func.count()).select_from(accounts).where(looked_at(by), LIVE, ~SHORT_LIVED, ends)


def expired_warned(now: datetime) -> Select[int]:
    """`model.State.EXPIRED`, of accounts whose last secret was warned of: it has expired, and they have no key or
    certificate either."""
    last = accounts.c.secret_expire_time == secrets.c.expire_time
    whose = select(accounts.c.id).where(OWNER, last, LIVE, ~LASTING).exists()
    over = secrets.c.expire_time <= literal(now, Time)
    return select(func.count()).select_from(secrets).where(secrets.c.warned, over, whose)


def expired_unwarned(now: datetime, by: datetime) -> Select[int]:
    """As `expired_warned`, of those that were never warned, where it is time to look by then."""
    warned = and_(OWNER, secrets.c.warned, secrets.c.expire_time == accounts.c.secret_expire_time)
    told = select(secrets.c.id).where(warned).exists()
    over = accounts.c.secret_expire_time <= literal(now, Time)
    return select(func.count()).select_from(accounts).where(looked_at(by), over, LIVE, ~LASTING, ~told)
