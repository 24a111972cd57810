"""What an account's rotation policy may be: the words of each mode, a schedule that leaves room, a sink that there is.

Every refusal names the field and the bound, never the value.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from artstore_grpc import fields, schedules
from artstore_grpc.errors import invalid
from artstore_grpc.model import BY_HAND, Account, RotationMode, RotationPolicy
from artstore_grpc.sinks.configuration import Sinks

FIELD = "rotation_policy"
SHORTEST_INTERVAL = timedelta(hours=1)
ROOM = timedelta(minutes=30)
"""What is left between two times of a schedule besides the overlap: the new secret is delivered in it, and the old one
retired. At most two secrets of an account are live, so that the third waits for the first to end."""
SELF_OVERLAP = timedelta(hours=1)
"""The least under a `self` policy with a schedule: every secret that was made before one of its times ends with it and
the overlap, and a client that comes to rotate after that has nothing to do it with."""
NAME_LENGTH = 100
DESTINATION_LENGTH = 500


def checked(policy: RotationPolicy, sinks: Sinks) -> RotationPolicy:
    """The policy in its normal form. Raises InvalidRequest."""
    overlap = fields.overlap(policy.overlap, f"{FIELD}.overlap")
    _check_words(policy)
    if policy.mode is RotationMode.MANUAL:
        return BY_HAND
    schedule = _schedule(policy.schedule) if policy.schedule else ""
    if schedule:
        _check_room(schedule, overlap, policy.mode)
    if policy.mode is RotationMode.MANAGED:
        _check_sink(policy, sinks)
    return replace(policy, schedule=schedule)


def check_account(account: Account) -> None:
    """Raises InvalidRequest for an account whose policy needs a secret, and that has none."""
    if account.rotation_policy.mode is RotationMode.MANAGED and not account.secrets:
        raise invalid(f"{FIELD}.mode", "needs an account with a secret")


def _check_words(policy: RotationPolicy) -> None:
    """Each mode has its own: what it has no use for is refused, since who gave it expected something of it."""
    managed, manual = policy.mode is RotationMode.MANAGED, policy.mode is RotationMode.MANUAL
    for name in ("sink", "destination"):
        if getattr(policy, name) and not managed:
            raise invalid(f"{FIELD}.{name}", "is for a managed account only")
    for name in ("schedule", "sink"):
        if managed and not getattr(policy, name):
            raise invalid(f"{FIELD}.{name}", "is missing")
    if manual and policy.schedule:
        raise invalid(f"{FIELD}.schedule", "is for a self or managed account only")
    if manual and policy.overlap != BY_HAND.overlap:
        raise invalid(f"{FIELD}.overlap", "is for a self or managed account only")


def _schedule(text: str) -> str:
    try:
        return schedules.normal(text)
    except ValueError as error:
        raise invalid(f"{FIELD}.schedule", str(error)) from None


def _check_room(schedule: str, overlap: timedelta, mode: RotationMode) -> None:
    shortest = schedules.shortest_interval(schedule)
    if shortest < SHORTEST_INTERVAL:
        raise invalid(f"{FIELD}.schedule", "must leave an hour between any two of its times")
    if mode is RotationMode.SELF and overlap < SELF_OVERLAP:
        raise invalid(f"{FIELD}.overlap", "must be at least an hour: by then the client has to have a new secret")
    if overlap + ROOM > shortest:
        raise invalid(f"{FIELD}.overlap", "must be 30 minutes shorter than the shortest interval of the schedule")


def _check_sink(policy: RotationPolicy, sinks: Sinks) -> None:
    if len(policy.sink) > NAME_LENGTH or (sink := sinks.get(policy.sink)) is None:
        raise invalid(f"{FIELD}.sink", "must be one of the service's settings", reason="SINK_UNKNOWN")
    if len(policy.destination) > DESTINATION_LENGTH or not policy.destination.isprintable():
        raise invalid(f"{FIELD}.destination", f"must have at most {DESTINATION_LENGTH} printable characters")
    sink.check(policy.destination)
