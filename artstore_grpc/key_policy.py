"""When a signing key may sign, when the next one is to, when an old one may go: arithmetic on times, no I/O.

A key is published before it signs, for as long as a verifier that obeys `Cache-Control` (RFC 9111 §5.2.2.1) may keep
a key set without it, and stays published until the last token that any replica signed with it has expired. How keys
are stored and changed is for others (key_changes.py, signing_keys.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from artstore_grpc.model import KeyState, SigningKey

LEEWAY_SECONDS = 30
"""What replicas' clocks may differ by: a token that another has just issued is not yet to come. `exp` gets none."""
LEEWAY = timedelta(seconds=LEEWAY_SECONDS)
OUTAGE_SECONDS = 300
"""The longest life of a token issued while the database is down (docs/architecture.md)."""
LAG = timedelta(seconds=5)
"""How long a replica may not have noticed a change yet, nor that it is cut off: a poll and its timeout are 2.25 s."""
MARGIN_FRACTION = 10
MIN_MARGIN = timedelta(seconds=1)
"""The margin is a tenth of the key set's `max-age`, and no less than this. It covers what the times of the store don't
say: replicas' clocks that differ, and how long the commit took that published the key."""


class Step(Enum):
    """What the life cycle needs next."""

    PREPARE = auto()
    """There is no key that could sign next."""
    ACTIVATE = auto()
    """This prepared key is to sign from now on."""
    GIVE_UP = auto()
    """This prepared key is not needed: of another algorithm, or one too many."""
    PURGE = auto()
    """No token of this key can be live."""


@dataclass(frozen=True, slots=True)
class Due:
    """A step and the key that it is about; no key where one is to be made."""

    step: Step
    kid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """The settings that decide the life of keys, under the names they have in settings.py."""

    signing_algorithm: str
    key_rotation_interval: timedelta
    """Zero: no key is replaced because of its age."""
    jwks_max_age: timedelta
    token_lifetime: timedelta
    outage_window: timedelta

    @property
    def token_lifetime_seconds(self) -> int:
        return int(self.token_lifetime.total_seconds())

    def earliest_activate_time(self, key: SigningKey) -> datetime:
        """When every verifier that obeys `Cache-Control` has seen the key."""
        margin = max(self.jwks_max_age / MARGIN_FRACTION, MIN_MARGIN)
        return key.create_time + self.jwks_max_age + margin

    def may_sign(self, key: SigningKey, now: datetime) -> bool:
        return now >= self.earliest_activate_time(key)

    def max_age(self, staleness_seconds: float) -> timedelta:
        """How long a key set may be kept that was as the store had it so many seconds ago: whole seconds, 0 when it is
        as old as a key set may get. Thus a set without a key is dropped `jwks_max_age` after the key's commit,
        whichever replica gave it and however far behind that one was."""
        left = self.jwks_max_age.total_seconds() - staleness_seconds
        return timedelta(seconds=int(max(left, 0)))

    def purge_time(self, key: SigningKey) -> datetime | None:
        """When the last token that it may have signed has expired; None for a key that wasn't retired or revoked.

        A replica that is cut off from the store goes on signing with it for the outage window."""
        if key.retire_time is None:
            return None
        cut_off = self.outage_window + timedelta(seconds=OUTAGE_SECONDS)
        longest = max(timedelta(seconds=key.token_lifetime_seconds), cut_off)
        return key.retire_time + longest + LEEWAY + LAG

    def standby(self, keys: Sequence[SigningKey]) -> SigningKey | None:
        """The key that signs next: the oldest prepared one of the setting's algorithm."""
        fitting = (key for key in prepared(keys) if key.algorithm == self.signing_algorithm)
        return next(fitting, None)

    def rotation_due(self, active: SigningKey, now: datetime) -> bool:
        """Whether the active key has signed for long enough, or is not what the setting asks for."""
        if active.algorithm != self.signing_algorithm:
            return True
        since = active.activate_time or active.create_time
        return bool(self.key_rotation_interval) and now - since >= self.key_rotation_interval

    def next_rotation(self, keys: Sequence[SigningKey]) -> datetime | None:
        """When another key is to sign, as far as it is known: at the decided time, or when the active key has signed
        for long enough, and not before the next one may. None where nothing will by itself."""
        next_one, standby = planned(keys), self.standby(keys)
        if next_one is not None and next_one.activate_time is not None:
            return max(next_one.activate_time, self.earliest_activate_time(next_one))
        signing = active(keys)
        if signing.algorithm != self.signing_algorithm:
            return self.earliest_activate_time(standby) if standby else None
        if not self.key_rotation_interval:
            return None
        due_time = (signing.activate_time or signing.create_time) + self.key_rotation_interval
        return max(due_time, self.earliest_activate_time(standby)) if standby else due_time

    def due(self, keys: Sequence[SigningKey], now: datetime) -> Due | None:
        """What is to be done at `now`, one thing at a time; None when nothing is."""
        for key in keys:
            purge_time = self.purge_time(key)
            if purge_time is not None and purge_time <= now:
                return Due(Step.PURGE, key.kid)
        next_one = planned(keys)
        if next_one is not None and self.may_sign(next_one, now) and (next_one.activate_time or now) <= now:
            return Due(Step.ACTIVATE, next_one.kid)
        standby = self.standby(keys)
        if standby is None:
            return Due(Step.PREPARE)
        if next_one is None and self.may_sign(standby, now) and self.rotation_due(active(keys), now):
            return Due(Step.ACTIVATE, standby.kid)
        return self._surplus(keys, standby, now)

    def _surplus(self, keys: Sequence[SigningKey], standby: SigningKey, now: datetime) -> Due | None:
        """The others that are prepared are kept until verifiers know the standby: an emergency may need them."""
        if not self.may_sign(standby, now):
            return None
        others = (key for key in prepared(keys) if key is not standby and key.activate_time is None)
        other = next(others, None)
        return Due(Step.GIVE_UP, other.kid) if other else None


def active(keys: Sequence[SigningKey]) -> SigningKey:
    """The key that signs; there is exactly one."""
    return next(key for key in keys if key.state is KeyState.ACTIVE)


def prepared(keys: Sequence[SigningKey]) -> list[SigningKey]:
    """The prepared keys, the oldest first."""
    return sorted((key for key in keys if key.state is KeyState.PREPARED), key=lambda key: (key.create_time, key.kid))


def planned(keys: Sequence[SigningKey]) -> SigningKey | None:
    """The prepared key that is to sign at a decided time."""
    return next((key for key in prepared(keys) if key.activate_time is not None), None)
