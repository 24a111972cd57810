"""The signing keys as this process holds them, ready in memory: signs and verifies tokens. Makes the very first one.

Signatures and claims are joserfc's work. What it leaves to its caller is done here: the algorithm is pinned per key
(RFC 8725 §3.1), any `crit` is refused, and `typ` must be an access token's (RFC 9068 §4).
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import Key
from structlog.typing import FilteringBoundLogger

from artstore_grpc import key_policy
from artstore_grpc.counters import Lookups
from artstore_grpc.errors import LeaseLost, StoreUnavailable
from artstore_grpc.key_changes import KeyChanges
from artstore_grpc.key_material import Algorithms, LoadedKey, encoded, generate, opened, public_part, sealed
from artstore_grpc.key_policy import LEEWAY_SECONDS
from artstore_grpc.model import KeyState, SigningKey
from artstore_grpc.records import SYSTEM, Event, EventKind
from artstore_grpc.spans import span
from artstore_grpc.store.protocol import Store
from artstore_grpc.vault import Vault, WrongKey

ACCEPTED_TYPES = ("at+jwt", "application/at+jwt")
"""RFC 9068 §4."""
LEASE = "signing-key"
"""Of who makes the first key, and of who does what is due to the keys after that (signing_keys.py)."""
LEASE_LIFETIME = timedelta(seconds=15)
FIRST_KEY_PATIENCE = timedelta(seconds=30)
BEGUN = ("iat", "nbf")
"""The claims that say since when a token is valid."""
MAX_VERIFIED = 4096
"""Tokens whose claims are remembered by their digest; about 3 KB each."""


class BadToken(Exception):
    """A token that isn't a live access token of this issuer; the message is for the log."""


class Keyring:
    """The keys of this installation, as far as this process knows them."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        now: Callable[[], datetime],
        *,
        algorithm: str,
        issuer: str,
        token_lifetime_seconds: int = 0,
        logger: FilteringBoundLogger | None = None,
    ) -> None:
        self._log: FilteringBoundLogger = logger if logger is not None else structlog.get_logger(__name__)
        self._store = store
        self._vault = vault
        self._now = now
        self._algorithm = algorithm
        self._token_lifetime_seconds = token_lifetime_seconds
        self._keys: dict[str, LoadedKey] = {}
        self._active: LoadedKey | None = None
        self._known = Algorithms(algorithms=[])
        self._verified: OrderedDict[bytes, dict[str, Any]] = OrderedDict()
        needed: jwt.ClaimsOption = {"essential": True}
        ours: jwt.ClaimsOption = {"essential": True, "value": issuer}
        self.lookups = Lookups()
        """Of tokens that were verified before."""
        self.stored: list[SigningKey] = []
        """Every key as it was last read, the revoked ones too."""
        self._reloading = asyncio.Lock()
        self.version = 0
        """Grows whenever the keys are read anew."""
        self._begun = jwt.JWTClaimsRegistry(now=self._seconds, leeway=LEEWAY_SECONDS)
        self._rest = jwt.JWTClaimsRegistry(now=self._seconds, iss=ours, sub=needed, aud=needed, exp=needed, jti=needed)

    @property
    def active(self) -> LoadedKey:
        """The key that signs. Raises StoreUnavailable until `load` has read it."""
        if self._active is None:
            raise StoreUnavailable("the signing keys were not read yet")
        return self._active

    @property
    def signs(self) -> bool:
        """Whether there is a key to sign with."""
        return self._active is not None

    async def load(self) -> None:
        """Reads the keys, and makes the first one under a lease where there is none, or another in place of a damaged
        one: of replicas that start at once one makes it, the others wait for it. Raises StoreUnavailable, and WrongKey
        for another key-encryption key."""
        deadline = asyncio.get_running_loop().time() + FIRST_KEY_PATIENCE.total_seconds()
        holder = uuid.uuid4().hex
        while not await self.reload():
            if self._keys:
                await self._succeed()
            elif not await self._make_first(holder):
                await asyncio.sleep(0.1)
            if asyncio.get_running_loop().time() > deadline:
                raise StoreUnavailable("another replica holds the lease on the first signing key and makes none")

    def sign_as(self, kind: str, claims: bytes) -> str:
        """As `sign`, for a JWT that isn't an access token: `kind` is its `typ` (RFC 8725 §3.11)."""
        loaded = self.active
        header = orjson.dumps({"typ": kind, "alg": loaded.stored.algorithm, "kid": loaded.stored.kid})
        signing_input = encoded(header) + b"." + encoded(claims)
        return (signing_input + b"." + encoded(loaded.sign(signing_input))).decode()

    async def reload(self) -> bool:
        """Reads the keys anew; whether one of them is active. Raises StoreUnavailable, and WrongKey as `load` does."""
        async with self._reloading:  # what was read first must not be held last
            return await self._reload()

    async def _reload(self) -> bool:
        stored = await self._store.signing_keys()
        published = [key for key in stored if key.state is not KeyState.REVOKED]
        held = self._keys
        keys: dict[str, LoadedKey] = {}
        for key in published:
            before = held.get(key.kid)
            known = before is not None and not before.damaged
            keys[key.kid] = replace(before, stored=key) if before and known else await self._opened(key)
        if keys and all(loaded.damaged for loaded in keys.values()):
            # Not damage but another root key, or nothing left to go on with: an operator's to decide.
            raise WrongKey("No signing key can be opened.")
        self._hold(keys)
        self.stored = stored
        return self._active is not None

    async def _opened(self, key: SigningKey) -> LoadedKey:
        """A stored key; of one that is damaged, with an alarm, what can still verify."""
        try:
            # In a thread: an RSA key takes longer to parse than a hundred calls to answer.
            return await asyncio.to_thread(opened, self._vault, key)
        except WrongKey as error:
            self._log.error("signing key damaged", kid=key.kid, state=key.state.value, cause=str(error))
            return public_part(key)

    def sign(self, claims: bytes) -> str:
        """A compact JWS of claims in JSON by the active key (RFC 7515 §7.1). Costs little more than its signature."""
        loaded = self.active
        signing_input = loaded.protected + encoded(claims)
        with span("sign"):
            signature = loaded.sign(signing_input)
        return (signing_input + b"." + encoded(signature)).decode()

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a live access token of this issuer, whatever its audience; not to be changed. Raises BadToken.

        A token that was verified is asked about again and again: of what was checked then only `exp` can have changed,
        since the keys' own changes forget it all."""
        try:
            digest = hashlib.sha256(token.encode()).digest()
        except UnicodeEncodeError:
            raise BadToken("not text") from None
        claims = self._verified.get(digest)
        if claims is None or claims["exp"] <= self._seconds():
            self.lookups.misses += 1
            claims = self._verified[digest] = self._verify(token)
            if len(self._verified) > MAX_VERIFIED:
                self._verified.popitem(last=False)
        else:
            self.lookups.hits += 1
            self._verified.move_to_end(digest)
        return claims

    def _verify(self, token: str) -> dict[str, Any]:
        try:
            decoded = jwt.decode(token, self._key_for, registry=self._known)
            self._check(decoded.claims)
        except (JoseError, ValueError, TypeError, KeyError, UnicodeError, RecursionError) as error:
            raise BadToken(f"{type(error).__name__}") from None
        return decoded.claims

    def _check(self, claims: dict[str, Any]) -> None:
        """Raises JoseError unless the claims are those of a live token of this issuer."""
        self._begun.validate({name: claims[name] for name in BEGUN})
        self._rest.validate({name: value for name, value in claims.items() if name not in BEGUN})

    def _seconds(self) -> int:
        return int(self._now().timestamp())

    def public_keys(self) -> list[dict[str, Any]]:
        """The JWKs of every key whose tokens may still be live (RFC 7517 §5). Raises as `active` does."""
        assert self.active
        return [dict(loaded.stored.public_jwk) for loaded in self._keys.values()]

    def _key_for(self, token: Any) -> Key:
        header = token.headers()
        loaded = self._keys.get(header.get("kid", ""))
        if loaded is None or header.get("alg") != loaded.stored.algorithm:
            raise BadToken("unknown kid, or not its key's algorithm")
        if "crit" in header or str(header.get("typ", "")).lower() not in ACCEPTED_TYPES:
            raise BadToken("crit is present, or typ is not an access token's")
        return loaded.key

    def _hold(self, keys: dict[str, LoadedKey]) -> None:
        """Takes the published keys for all there are, and forgets what others have signed."""
        self._keys = keys
        self.version += 1
        whole = (each for each in keys.values() if not each.damaged)
        self._active = next((each for each in whole if each.stored.state is KeyState.ACTIVE), None)
        self._known = Algorithms(algorithms=list({loaded.stored.algorithm for loaded in keys.values()}))
        self._verified.clear()

    async def _make_first(self, holder: str) -> bool:
        """Makes the key if this replica gets the lease; active at once, since no verifier can have an older set."""
        now = self._now()
        lease = await self._store.acquire_lease(LEASE, holder, LEASE_LIFETIME, now)
        if lease is None:
            return False
        made = await self._generated(now)
        key = replace(made, state=KeyState.ACTIVE, activate_time=now)
        try:
            async with self._store.unit() as unit:
                await unit.require_lease(lease)
                if not await unit.signing_keys():
                    await unit.add_signing_key(key)
                    detail = {"algorithm": key.algorithm, "state": key.state.value, "public_jwk": key.public_jwk}
                    unit.record(Event(now, SYSTEM, EventKind.KEY_CREATED, key.kid, detail))
        except LeaseLost:
            return False
        await self._store.release_lease(lease)
        return True

    async def _succeed(self) -> None:
        """Has the oldest prepared key that can be opened, else a new one, sign in place of a damaged one; which is
        retired, since nobody else has it: what it signed is good. No lease: a replica that holds it may hold the key
        too, and see no damage; the keys are locked, and who comes second finds another one active."""
        now = self._now()
        made = await self._generated(now)
        async with self._store.unit() as unit:
            keys = KeyChanges(unit, await unit.signing_keys(), now, SYSTEM)
            held = self._keys.get(keys.active.kid)
            if held is not None and held.damaged:
                known = [key for key in key_policy.prepared(keys.keys) if key.kid in self._keys]
                successor = next((key for key in known if not self._keys[key.kid].damaged), None)
                await keys.activate(successor or await keys.add(made))

    async def _generated(self, now: datetime) -> SigningKey:
        """A new key, not stored yet."""
        key = await asyncio.to_thread(generate, self._algorithm)
        return sealed(self._vault, key, now, self._token_lifetime_seconds)
