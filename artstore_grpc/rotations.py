"""What happens to an account's secrets by itself, when, and why: accounts in, steps out. No I/O, no clock.

A managed secret is rotated at its schedule's times, and never later than a day before its users would be warned. A new
secret that waits to be delivered comes before everything else. The old one ends when its overlap has passed, or before
that where it was seen that nobody needs it. Who carries steps out: scheduled_rotation.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from artstore_grpc import schedules
from artstore_grpc.model import SECRET_LIFETIME, SECRET_WARNING, Account, RotationMode, Secret, State

MANAGED_LEAD = SECRET_WARNING + timedelta(days=1)
"""How long before its secret expires a managed account is rotated at the latest: in good order nobody is warned."""
SELF_WARNING_FRACTION = 10
"""Under a `self` policy with a schedule secrets may live for hours, and a client isn't late before the schedule's time:
the warning comes when half of the overlap is left, without one when a tenth of the secret's life is, and not sooner
than 7 days before."""
UNSEEN = timedelta(minutes=1)
"""How long a use may not have reached the store: replicas write them every few seconds (usage.py)."""
SHORTEST_IDLE = timedelta(minutes=1) + UNSEEN
"""The least that `idle` can be, by the bounds of settings.token_lifetime."""


class Action(StrEnum):
    """What happens, in the order in which things that are due at once are done."""

    ROTATE = "rotate"
    DELIVER = "deliver"
    RETIRE = "retire"
    WARN = "warn"
    EXPIRE = "expire"
    PURGE = "purge"


ORDER = tuple(Action)


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to a secret, or with an empty `secret_id` to the account, and when."""

    account_id: str
    client_id: str
    name: str
    action: Action
    time: datetime
    secret_id: str = ""
    reason: str = ""

    @property
    def about(self) -> tuple[Action, str]:
        """What tells it from the account's others."""
        return self.action, self.secret_id


def steps(account: Account, idle: timedelta) -> list[Step]:
    """Everything that is to come for an account as it stands, in its order: the next rotation, not those after that.

    `idle`: for how long nobody must have used an old secret before it is retired early, a token's life and UNSEEN."""
    found = [
        Step(account.id, account.client_id, account.name, action, time, secret_id, reason)
        for action, time, secret_id, reason in _found(account, idle)
    ]
    return sorted(found, key=lambda step: (step.time, ORDER.index(step.action), step.secret_id))


def due(account: Account, now: datetime, idle: timedelta) -> list[Step]:
    """Those of its steps whose time has come. What has expired is not warned of any more."""
    found = [step for step in steps(account, idle) if step.time <= now]
    expires = any(step.action is Action.EXPIRE for step in found)
    return [step for step in found if not (expires and step.action is Action.WARN)]


def due_time(account: Account) -> datetime | None:
    """When to look at an account next, as far as can be told when it is saved; None: never. Not after the first of its
    steps, whatever `idle` is and whoever uses its secrets meanwhile."""
    times = [step.time for step in steps(account, SHORTEST_IDLE)]
    if account.next_rotate_time and account.rotation_policy.mode is RotationMode.MANAGED and not account.purge_time:
        times.append(account.next_rotate_time)  # where it waits for the newest to be used
    times += [old.replace_time + SHORTEST_IDLE for old in _may_retire_early(account) if old.replace_time]
    return min(times, default=None)


def look_time(account: Account, now: datetime, idle: timedelta) -> datetime | None:
    """When to look again at an account to which nothing is due now."""
    times = [step.time for step in steps(account, idle)]
    if any(_idle_since(account, old) is None for old in _may_retire_early(account)):
        times.append(now + idle)  # until the new secret is used nothing says when the old one will be idle
    return min(times, default=None)


def scheduled(account: Account, now: datetime) -> Account:
    """The account with its `next_rotate_time` as its policy and its secrets have it now."""
    return replace(account, next_rotate_time=_next_rotate_time(account, now))


def sooner(account: Account, now: datetime) -> Account:
    """As `scheduled`, where a secret is gone: a rotation that is due, or comes before, stays; one that has none left
    gets another at once."""
    if account.rotation_policy.mode is RotationMode.MANAGED and not account.secrets:
        return replace(account, next_rotate_time=now)
    times = [time for time in (account.next_rotate_time, _next_rotate_time(account, now)) if time is not None]
    return replace(account, next_rotate_time=min(times, default=None))


def secret_expire_time(account: Account, create_time: datetime) -> datetime:
    """When a secret that is made now expires: in 90 days; under a `self` policy with a schedule, when the next of its
    times and the overlap have passed, if that is sooner."""
    policy, latest = account.rotation_policy, create_time + SECRET_LIFETIME
    if policy.mode is not RotationMode.SELF or not policy.schedule:
        return latest
    return min(latest, schedules.next_time(policy.schedule, create_time) + policy.overlap)


def in_use(secret: Secret) -> bool:
    """Whether anybody has ever authenticated with it."""
    return secret.last_used_time is not None or secret.tag is not None


def is_used(account: Account, secret_id: str) -> bool:
    """As `in_use`, of a secret by its id."""
    return any(secret.id == secret_id and in_use(secret) for secret in account.secrets)


def is_known_by_sink_only(account: Account) -> bool:
    """Whether the secret that waits to be delivered was made by the plan: who uses it has it from the sink. Beside one
    that an operator made, and was shown, the old one's overlap runs already."""
    return any(secret.replace_time is None for secret in delivered(account))


def delivered(account: Account) -> tuple[Secret, ...]:
    """Its secrets, the newest first, but for one that waits to be delivered."""
    pending = account.delivery.secret_id if account.delivery else ""
    return tuple(secret for secret in account.secrets if secret.id != pending)


def _next_rotate_time(account: Account, now: datetime) -> datetime | None:
    policy = account.rotation_policy
    newest = account.secrets[0] if account.secrets else None
    times = [schedules.next_time(policy.schedule, now)] if policy.schedule else []
    if policy.mode is RotationMode.MANAGED and newest:
        times.append(newest.expire_time - MANAGED_LEAD)
    if policy.mode is RotationMode.SELF and newest:
        times.append(newest.expire_time - policy.overlap)
    return min(times, default=None)


def _found(account: Account, idle: timedelta) -> Iterator[tuple[Action, datetime, str, str]]:
    if account.purge_time is not None:
        yield Action.PURGE, account.purge_time, "", "It was deleted 30 days before."
        return
    if account.suspended:
        return
    if account.delivery is not None:
        yield (Action.DELIVER, *_delivery(account))
    elif account.rotation_policy.mode is RotationMode.MANAGED and account.next_rotate_time is not None:
        yield (
            Action.ROTATE,
            _rotate_time(account, account.next_rotate_time),
            "",
            _why(account, account.next_rotate_time),
        )
    if account.delivery is None:
        for old in account.secrets[1:]:
            yield (Action.RETIRE, *_retirement(account, old, idle))
    yield from _ends(account)


def _rotate_time(account: Account, planned: datetime) -> datetime:
    """Not while the newest was delivered and its users still work with the old one: a third would end the newest, which
    they are about to take up."""
    if len(account.secrets) > 1 and not in_use(account.secrets[0]):
        return max(planned, account.secrets[1].expire_time)
    return planned


def _delivery(account: Account) -> tuple[datetime, str, str]:
    pending = account.delivery
    assert pending is not None
    time = min(pending.next_attempt_time, pending.give_up_time)
    if is_used(account, pending.secret_id):
        return time, pending.secret_id, "Its users have it already."
    failed = f" The last one failed: {pending.last_error}" if pending.attempts else ""
    return time, pending.secret_id, f"Attempt {pending.attempts + 1}.{failed}"


def _why(account: Account, time: datetime) -> str:
    schedule = account.rotation_policy.schedule
    if account.secrets and account.secrets[0].expire_time - MANAGED_LEAD == time:
        return f"Its secret expires on {said(account.secrets[0].expire_time)}."
    return f"Its schedule is {schedule}."


def _retirement(account: Account, old: Secret, idle: timedelta) -> tuple[datetime, str, str]:
    idle_since = _idle_since(account, old) if old in _may_retire_early(account) else None
    if idle_since is not None and idle_since + idle < old.expire_time:
        return idle_since + idle, old.id, f"Nobody has used it since {said(idle_since)}, and the new one is in use."
    return old.expire_time, old.id, "Its overlap ends."


def _may_retire_early(account: Account) -> tuple[Secret, ...]:
    """The old secrets that needn't live to the end of their overlap. An operator who rotates by hand has said how long
    the old one is to live, and may want to go back to it."""
    if account.rotation_policy.mode is RotationMode.MANUAL or account.delivery or account.delete_time:
        return ()
    return () if account.suspended else tuple(old for old in account.secrets[1:] if old.replace_time)


def _idle_since(account: Account, old: Secret) -> datetime | None:
    """Since when an old secret was not used; None while the new one wasn't either: its users may just be idle."""
    if account.secrets[0].last_used_time is None or old.replace_time is None:
        return None
    return max(old.last_used_time or old.replace_time, old.replace_time)


def _ends(account: Account) -> Iterator[tuple[Action, datetime, str, str]]:
    last = max(delivered(account), key=lambda secret: secret.expire_time, default=None)
    if last is not None and not last.warned:
        reason = f"Its last secret expires on {said(last.expire_time)}."
        yield Action.WARN, last.expire_time - _warning(account, last), last.id, reason
    expire_time = account.secret_expire_time
    if expire_time in (None, account.told_expire_time):
        return
    if account.state(expire_time) is State.EXPIRED:
        yield Action.EXPIRE, expire_time, "", "Its last secret expires."


def _warning(account: Account, secret: Secret) -> timedelta:
    policy = account.rotation_policy
    if policy.mode is not RotationMode.SELF or not policy.schedule:
        return SECRET_WARNING
    late = policy.overlap / 2 or (secret.expire_time - secret.create_time) / SELF_WARNING_FRACTION
    return min(SECRET_WARNING, late)


def said(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
