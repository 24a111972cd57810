"""The signing keys within one unit, locked: each method here moves a key on in its life, and records that it did.

    prepared ──activate──▶ active ──(another is activated)──▶ retired ──purge──▶ gone
        │                     │                                  │
        ├──give up──▶ gone    └──────────── revoke ──────────────┴──▶ revoked ──purge──▶ gone

Exactly one key is active at the end of every unit. Whether a step is allowed is asked in signing_keys.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from artstore_grpc import key_policy
from artstore_grpc.errors import FailedPrecondition, NotFound
from artstore_grpc.model import KeyState, SigningKey
from artstore_grpc.records import Actor, Event, EventKind
from artstore_grpc.store.protocol import Unit
from artstore_grpc.vault import KEY_ID_BYTES

GONE = "gone"
"""The state that a purge's ledger row tells: no row of `signing_keys` has it."""


class KeyChanges:
    """Every key as the unit has read it, and what it does to them. `now` is the one time of all its changes."""

    def __init__(self, unit: Unit, keys: Sequence[SigningKey], now: datetime, actor: Actor) -> None:
        self.keys = list(keys)
        self.now = now
        self._unit = unit
        self._actor = actor

    @property
    def active(self) -> SigningKey:
        return key_policy.active(self.keys)

    def get(self, kid: str) -> SigningKey:
        """Raises NotFound."""
        for key in self.keys:
            if key.kid == kid:
                return key
        raise NotFound("There is no such signing key.", reason="KEY_NOT_FOUND")

    async def add(self, key: SigningKey) -> SigningKey:
        """Publishes a new key. Its `create_time` is this unit's: what verifiers are given before it can't have it.
        Raises FailedPrecondition for one that is sealed under another root key than the others: none could open it."""
        if key.sealed[:KEY_ID_BYTES] != self.active.sealed[:KEY_ID_BYTES]:
            raise FailedPrecondition("The root key has changed; restart this process.", reason="ROOT_KEY_CHANGED")
        added = replace(key, create_time=self.now)
        await self._unit.add_signing_key(added)
        self.keys.append(added)
        self._record(EventKind.KEY_CREATED, added, algorithm=added.algorithm, public_jwk=added.public_jwk)
        return added

    async def plan(self, key: SigningKey, time: datetime) -> SigningKey:
        """Decides when a prepared key is to sign."""
        changed = await self._save(replace(key, activate_time=time))
        self._record(EventKind.KEY_SCHEDULED, changed, activate_time=time.isoformat(), before=activation_of(key))
        return changed

    async def activate(self, key: SigningKey) -> SigningKey:
        """Has a prepared key sign, and retires the one that did."""
        await self._end(self.active, KeyState.RETIRED, EventKind.KEY_RETIRED)
        return await self._begin(key)

    async def revoke(self, key: SigningKey) -> SigningKey:
        """Revokes a key that is not the active one."""
        return await self._end(key, KeyState.REVOKED, EventKind.KEY_REVOKED)

    async def revoke_active(self, successor: SigningKey) -> SigningKey:
        """Revokes the active key, and has a prepared one sign in its place."""
        revoked = await self._end(self.active, KeyState.REVOKED, EventKind.KEY_REVOKED)
        await self._begin(successor)
        return revoked

    async def give_up(self, key: SigningKey) -> SigningKey:
        """Ends a prepared key at once: it has signed nothing."""
        retired = replace(key, state=KeyState.RETIRED, retire_time=self.now)
        self._record(EventKind.KEY_RETIRED, retired, before=state_of(key))
        self.keys[self.keys.index(key)] = retired
        await self.purge(retired)
        return retired

    async def purge(self, key: SigningKey) -> None:
        """Deletes a key."""
        await self._unit.delete_signing_key(key.kid)
        self.keys.remove(key)
        told = {"state": GONE, "before": state_of(key)}
        self._unit.record(Event(self.now, self._actor, EventKind.KEY_PURGED, key.kid, told))

    async def raise_token_lifetime(self, seconds: int) -> None:
        """Notes that a replica signs tokens of this life by every key that signs or may come to. No ledger row: it
        is a bound on when a key may go, not a change that anybody decided."""
        for key in list(self.keys):
            if signs_tokens_shorter_than(key, seconds):
                await self._save(replace(key, token_lifetime_seconds=seconds))

    async def _begin(self, key: SigningKey) -> SigningKey:
        changed = await self._save(replace(key, state=KeyState.ACTIVE, activate_time=self.now))
        self._record(EventKind.KEY_ACTIVATED, changed, before=state_of(key))
        return changed

    async def _end(self, key: SigningKey, state: KeyState, kind: EventKind) -> SigningKey:
        ended = replace(key, state=state, retire_time=key.retire_time or self.now)
        changed = await self._save(ended)
        self._record(kind, changed, before=state_of(key))
        return changed

    async def _save(self, key: SigningKey) -> SigningKey:
        await self._unit.save_signing_key(key)
        self.keys = [key if each.kid == key.kid else each for each in self.keys]
        return key

    def _record(self, kind: EventKind, key: SigningKey, **detail: Any) -> None:
        self._unit.record(Event(self.now, self._actor, kind, key.kid, {**state_of(key), **detail}))


def state_of(key: SigningKey) -> dict[str, str]:
    return {"state": key.state.value}


def activation_of(key: SigningKey) -> dict[str, str | None]:
    return {"activate_time": key.activate_time.isoformat() if key.activate_time else None}


def signs_tokens_shorter_than(key: SigningKey, seconds: int) -> bool:
    """Whether a key may sign and is said to sign no token of this life."""
    return key.state in (KeyState.PREPARED, KeyState.ACTIVE) and key.token_lifetime_seconds < seconds
