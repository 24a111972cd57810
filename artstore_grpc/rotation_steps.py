"""How each step of the plan changes its account: in a unit that has locked it, with the ledger row that says so.

Nothing here waits for anything but the store: a new secret was hashed before, a sink was asked before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from artstore_grpc import jobs, rotations
from artstore_grpc.deliveries import Deliveries
from artstore_grpc.descriptions import differences
from artstore_grpc.model import Account, PendingDelivery, Secret
from artstore_grpc.records import Actor, Event, EventKind
from artstore_grpc.rotation import kept_beside, outlived
from artstore_grpc.secrets import NewSecret
from artstore_grpc.store.protocol import Unit

FRESH_RETRY = timedelta(hours=1)
"""When a secret that its sink refuses for good gives way to a fresh one: somebody has to mend something before."""


@dataclass(frozen=True, slots=True)
class Change:
    """An account in a unit that has locked it, and on whose behalf it is changed."""

    unit: Unit
    account: Account
    now: datetime
    actor: Actor

    async def rotate(self, made: NewSecret, secret: Secret, deliveries: Deliveries) -> Account:
        """Has a new secret beside the old one, which lives on as it did until the new one is delivered. Raises
        FailedPrecondition when two are live and both were used."""
        kept = kept_beside(self.account.live_secrets(self.now))[:1] or self.account.secrets[:1]
        rotated = rotations.scheduled(replace(self.account, secrets=(secret, *kept)), self.now)
        rotated = replace(rotated, delivery=deliveries.sealed(rotated, made, secret))
        await self.unit.void_replays(rotated.id)
        return await self._saved(rotated, EventKind.SECRET_ROTATED, secret_id=secret.id, **self._place())

    async def delivered(self) -> Account:
        """The new secret is where its users find it: from now on the old one's overlap runs."""
        pending = self.pending
        new, *old = sorted(self.account.secrets, key=lambda secret: secret.id != pending.secret_id)
        overlap = self.account.rotation_policy.overlap
        begun = tuple(each for each in old if each.replace_time)  # an operator who rotated has said how long they live
        begin = tuple(each for each in old if not each.replace_time)
        secrets = (new, *begun, *outlived(begin, overlap, self.now))
        # What came due meanwhile is done by this one.
        changed = rotations.scheduled(replace(self.account, secrets=secrets, delivery=None), self.now)
        tried = {"secret_id": pending.secret_id, "attempts": pending.attempts + 1}
        return await self._saved(changed, EventKind.SECRET_DELIVERED, **tried, **self._place())

    async def abandoned(self, reason: str, *, again: timedelta = timedelta(0)) -> Account:
        """A secret that nobody has is gone again; after `again` a fresh one is made, where the policy still says so."""
        pending = self.pending
        kept = tuple(secret for secret in self.account.secrets if secret.id != pending.secret_id)
        changed = rotations.scheduled(replace(self.account, secrets=kept, delivery=None), self.now)
        if changed.next_rotate_time is not None and changed.rotation_policy.sink:
            changed = replace(changed, next_rotate_time=min(changed.next_rotate_time, self.now + again))
        told = {"secret_id": pending.secret_id, "attempts": pending.attempts, "reason": reason}
        return await self._saved(changed, EventKind.SECRET_DELIVERY_ABANDONED, **told, **self._place())

    async def again(self) -> None:
        """Has its secret rotated as soon as that can be."""
        await self.unit.save_account(replace(self.account, next_rotate_time=self.now))

    async def postponed(self, pending: PendingDelivery) -> Account:
        """An attempt at the delivery has failed; nothing that an auditor looks for."""
        changed = replace(self.account, delivery=pending)
        await self.unit.save_account(changed)
        return changed

    async def retired(self, secret_id: str, reason: str) -> Account:
        """The old secret is gone."""
        kept = tuple(secret for secret in self.account.secrets if secret.id != secret_id)
        changed = replace(self.account, secrets=kept)
        return await self._saved(changed, EventKind.SECRET_RETIRED, secret_id=secret_id, reason=reason)

    async def warned(self, secret_id: str) -> Account:
        """Says once that the last secret is about to expire."""
        (last,) = [secret for secret in self.account.secrets if secret.id == secret_id]
        told = {"secret_id": secret_id, "expire_time": last.expire_time.isoformat()}
        return await self._told(EventKind.SECRET_EXPIRING, told, {secret_id}, self.account.told_expire_time)

    async def expired(self) -> Account:
        """Says once that the last secret has expired, and the account with it."""
        expire_time = self.account.secret_expire_time
        assert expire_time is not None
        told = {"expire_time": expire_time.isoformat()}
        every = {secret.id for secret in self.account.secrets}
        return await self._told(EventKind.ACCOUNT_EXPIRED, told, every, expire_time)

    async def purged(self) -> Account:
        """It is gone, with all that belonged to it."""
        await jobs.purge(self.unit, self.account, self.now, self.actor)
        return self.account

    async def _told(
        self, kind: EventKind, detail: dict[str, Any], warned: set[str], told_expire_time: datetime | None
    ) -> Account:
        """The account itself is as it was, and so is its etag: what was told is marked, so that it is told once."""
        secrets = tuple(replace(s, warned=s.warned or s.id in warned) for s in self.account.secrets)
        changed = replace(self.account, secrets=secrets, told_expire_time=told_expire_time)
        await self.unit.save_account(changed)
        self._record(kind, changed, detail)
        return changed

    async def _saved(self, changed: Account, kind: EventKind, **detail: Any) -> Account:
        changed = replace(changed, version=changed.version + 1, update_time=self.now)
        await self.unit.save_account(changed)
        self._record(kind, changed, detail | differences(self.account, changed))
        return changed

    def _record(self, kind: EventKind, account: Account, detail: dict[str, Any]) -> None:
        told = {"client_id": account.client_id, **detail}
        self.unit.record(Event(self.now, self.actor, kind, account.id, told))

    def _place(self) -> dict[str, str]:
        policy = self.account.rotation_policy
        return {"sink": policy.sink, "destination": policy.destination}

    @property
    def pending(self) -> PendingDelivery:
        """The delivery that the account waits for."""
        assert self.account.delivery is not None
        return self.account.delivery
