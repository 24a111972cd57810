"""The life cycle of signing keys: prepared, active, retired, gone; revoked in an emergency. By verbs and by itself.

A key signs only once every verifier that obeys `Cache-Control` has it; the one exception is what follows a revoked key:
the oldest prepared one, though it may be too young yet, or one made now. Of several processes one does what is due by
itself: it holds a lease for as long as it runs, so that during a rolling change of settings one process decides, and
each unit looks again at what it is about to change. Times are in key_policy.py, single changes in key_changes.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from artstore_grpc import key_policy
from artstore_grpc.call import Caller
from artstore_grpc.errors import FailedPrecondition, LeaseLost, StoreUnavailable
from artstore_grpc.key_changes import KeyChanges, signs_tokens_shorter_than
from artstore_grpc.key_material import generate, sealed
from artstore_grpc.key_policy import Due, KeyPolicy, Step
from artstore_grpc.keys import LEASE, Keyring
from artstore_grpc.model import KeyState, Lease, SigningKey
from artstore_grpc.records import SYSTEM, Actor
from artstore_grpc.replica import Replica
from artstore_grpc.store.protocol import Store
from artstore_grpc.vault import Vault

TICK_INTERVAL = timedelta(seconds=1)
LEASE_LIFETIME = timedelta(seconds=30)
"""After a crash of the process that did what is due, another takes over this much later; renewed at half."""
MAX_STEPS = 20
"""Of one tick: a bound, should two processes undo each other's work."""


class SigningKeys:
    """The rules of signing keys. Callers are authenticated and have passed the policy table."""

    def __init__(
        self,
        *,
        store: Store,
        keyring: Keyring,
        replica: Replica,
        vault: Vault,
        policy: KeyPolicy,
        now: Callable[[], datetime],
    ) -> None:
        self.policy = policy
        self._store = store
        self._keyring = keyring
        self._replica = replica
        self._vault = vault
        self._now = now
        self._holder = uuid.uuid4().hex
        self._lease: Lease | None = None

    def max_age(self) -> timedelta:
        """How long the key set that this process publishes now may be kept."""
        return self.policy.max_age(self._replica.staleness_seconds)

    @property
    def activate_time(self) -> datetime | None:
        """When the key that signs began to; None without one."""
        if not self._keyring.signs:
            return None
        stored = self._keyring.active.stored
        return stored.activate_time or stored.create_time

    @property
    def next_rotation(self) -> datetime | None:
        """As `KeyPolicy.next_rotation`, of the keys as this process knows them."""
        return self.policy.next_rotation(self._keyring.stored) if self._keyring.signs else None

    async def list(self) -> list[SigningKey]:
        """Every key that is not gone, the oldest first."""
        return await self._store.signing_keys()

    async def prepare(self, caller: Caller) -> SigningKey:
        """A key that can sign next: the one that is prepared, else a new one."""
        before = self.policy.standby(await self._store.signing_keys())
        if before is not None:
            return before
        spare = await self._generated()
        async with self._locked(caller.actor) as keys:
            return self.policy.standby(keys.keys) or await keys.add(spare)

    async def activate(self, kid: str, caller: Caller) -> SigningKey:
        """Has a prepared key sign from now on. Raises NotFound; FailedPrecondition for a key that isn't prepared, and
        while a verifier could still not have seen it."""
        async with self._locked(caller.actor) as keys:
            key = require_prepared(keys.get(kid))
            if not self.policy.may_sign(key, keys.now):
                earliest = self.policy.earliest_activate_time(key).isoformat(timespec="milliseconds")
                raise FailedPrecondition(
                    f"Verifiers may not have seen the key yet; it may sign from {earliest} on.",
                    reason="KEY_NOT_PUBLISHED_LONG_ENOUGH",
                )
            return await keys.activate(key)

    async def retire(self, kid: str, caller: Caller) -> SigningKey:
        """Gives up a prepared key; it is gone at once. Raises NotFound, FailedPrecondition for any other key."""
        async with self._locked(caller.actor) as keys:
            key = keys.get(kid)
            if key.state is KeyState.ACTIVE:
                raise FailedPrecondition(
                    "The key signs; activate another one, which retires it.", reason="ACTIVATE_ANOTHER_FIRST"
                )
            return await keys.give_up(require_prepared(key))

    async def revoke(self, kid: str, caller: Caller) -> tuple[SigningKey, SigningKey]:
        """Revokes a key, whatever its state, and returns it with the key that signs now: in place of an active one the
        oldest prepared one, else one made now. A revoked key is answered as it is. Raises NotFound."""
        spare: SigningKey | None = None
        while True:
            async with self._locked(caller.actor) as keys:
                key = keys.get(kid)
                if key.state is KeyState.REVOKED:
                    return key, keys.active
                if key.state is not KeyState.ACTIVE:
                    return await keys.revoke(key), keys.active
                successor = next(iter(key_policy.prepared(keys.keys)), None)
                if successor is None and spare is not None:
                    successor = await keys.add(spare)
                if successor is not None:
                    return await keys.revoke_active(successor), keys.active
            spare = await self._generated()

    async def rotate(self, caller: Caller) -> SigningKey:
        """The next key: active now if it may sign, else prepared with the time at which it will be. What another call
        has begun is answered as it is, so that of several at once one rotates."""
        seen, spare = self._keyring.active.stored.kid, None
        while True:
            async with self._locked(caller.actor) as keys:
                if keys.active.kid != seen:
                    return keys.active
                following = key_policy.planned(keys.keys) or self.policy.standby(keys.keys)
                if following is None and spare is not None:
                    following = await keys.add(spare)
                if following is not None:
                    return await self._follow(following, keys)
            spare = await self._generated()

    async def _follow(self, following: SigningKey, keys: KeyChanges) -> SigningKey:
        if self.policy.may_sign(following, keys.now):
            return await keys.activate(following)
        if following.activate_time is not None:
            return following
        return await keys.plan(following, self.policy.earliest_activate_time(following))

    async def tick(self) -> None:
        """Does what is due, if no other process is at it."""
        if not self._keyring.signs:  # the key that took over is damaged: another must
            await self._keyring.load()
        await self.raise_token_lifetime()
        try:
            for _ in range(MAX_STEPS):
                # From memory, which the ledger keeps true: what is done about it asks the store again.
                due = self.policy.due(self._keyring.stored, self._now())
                lease = await self._leading(due)
                if due is None or lease is None:
                    return
                await self._do(due, lease)
        except LeaseLost:
            self._lease = None

    async def raise_token_lifetime(self) -> None:
        """Notes how long the tokens of this process live, before it signs any by a key that is to be kept for less."""
        seconds = self.policy.token_lifetime_seconds
        if any(signs_tokens_shorter_than(key, seconds) for key in self._keyring.stored):
            async with self._locked(SYSTEM) as keys:
                await keys.raise_token_lifetime(seconds)
            await self._keyring.reload()  # it is no row of the ledger

    async def resign(self) -> None:
        """Gives the lease back, so that another process goes on at once."""
        lease, self._lease = self._lease, None
        if lease is not None:
            with contextlib.suppress(StoreUnavailable):  # it ends by itself
                await self._store.release_lease(lease)

    async def _leading(self, due: Due | None) -> Lease | None:
        """The lease of who does what is due: kept while this process has it, taken when there is something to do."""
        now = self._now()
        if self._lease is not None and self._lease.expire_time <= now:
            self._lease = None
        held = self._lease
        if (held is None and due is not None) or (held is not None and held.expire_time - now < LEASE_LIFETIME / 2):
            self._lease = await self._store.acquire_lease(LEASE, self._holder, LEASE_LIFETIME, now)
        return self._lease

    async def _do(self, due: Due, lease: Lease) -> None:
        spare = await self._generated() if due.step is Step.PREPARE else None
        async with self._locked(SYSTEM, lease) as keys:
            if self.policy.due(keys.keys, keys.now) != due:
                return  # somebody else has done it, or something that comes first
            if spare is not None:
                await keys.add(spare)
            elif due.step is Step.ACTIVATE:
                await keys.activate(keys.get(due.kid))
            elif due.step is Step.GIVE_UP:
                await keys.give_up(keys.get(due.kid))
            else:
                await keys.purge(keys.get(due.kid))

    async def _generated(self) -> SigningKey:
        """A new key of the setting's algorithm, not stored yet."""
        made = await asyncio.to_thread(generate, self.policy.signing_algorithm)
        return sealed(self._vault, made, self._now(), self.policy.token_lifetime_seconds)

    @asynccontextmanager
    async def _locked(self, actor: Actor, lease: Lease | None = None) -> AsyncIterator[KeyChanges]:
        """The keys, locked until the unit's end; this process reads back what became of them."""
        async with self._store.unit() as unit:
            if lease is not None:
                await unit.require_lease(lease)
            stored: Sequence[SigningKey] = await unit.signing_keys()
            yield KeyChanges(unit, stored, self._now(), actor)
        await self._replica.after_write()


def require_prepared(key: SigningKey) -> SigningKey:
    """Raises FailedPrecondition."""
    if key.state is not KeyState.PREPARED:
        raise FailedPrecondition("The key is not prepared.", reason="KEY_NOT_PREPARED")
    return key
