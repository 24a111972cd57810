"""Processes of one installation in this one, wired as `app.py` does it, on a clock that only tests move.

Nothing happens by itself: a test polls the ledger and does what is due, for each process, when it says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson

from artstore_grpc import key_policy, startup
from artstore_grpc.call import Caller
from artstore_grpc.gateway.app import build
from artstore_grpc.gateway.server import GatewayServer
from artstore_grpc.installation import key_encryption
from artstore_grpc.listeners import bind
from artstore_grpc.model import Account, KeyState, Role, SigningKey
from artstore_grpc.parts import Parts, parts
from artstore_grpc.settings import Settings
from artstore_grpc.signing_keys import SigningKeys
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.vault import new_key
from tests.installation import ANY, Log

ISSUER = "http://issuer.test"
START = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class FakeTime:
    """The time of day and the monotonic clock, moved together and only by `advance`."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return (self.time - START).total_seconds()

    def advance(self, by: timedelta) -> None:
        self.time += by


def operator() -> Caller:
    """Whoever manages keys."""
    account = Account("operator", "sa_dev_operator_00000000", "operator", Role.ADMIN, START, START)
    return Caller(account, frozenset(account.granted_scopes))


@dataclass
class Installation:
    """What the processes share. `settings` are those of each that is opened."""

    url: str
    time: FakeTime = field(default_factory=FakeTime)
    key: str = field(default_factory=new_key)

    def settings(self, **changes: Any) -> Settings:
        chosen: dict[str, Any] = {
            "database_url": self.url,
            "key_encryption_key": self.key,
            "issuer": ISSUER,
            "bcrypt_cost": 4,
            "signing_algorithm": "ES256",
            "jwks_max_age": timedelta(seconds=60),
            "key_rotation_interval": timedelta(hours=1),
            "token_lifetime": timedelta(minutes=10),
            "outage_window": timedelta(0),
        }
        return Settings(**(chosen | changes))

    @asynccontextmanager
    async def process(self, **settings: Any) -> AsyncIterator[Process]:
        """A process that has read what it needs, and whose jobs run when the test says so."""
        chosen = self.settings(**settings)
        encryption, log = key_encryption(chosen), configured("error", Log())
        async with parts(chosen, encryption, ISSUER, log, self.time, self.time.monotonic) as made:
            await startup.load(chosen, made, log)
            yield Process(made, self.time)


@dataclass
class Process:
    """A process: its parts, and what a test does with it."""

    parts: Parts
    time: FakeTime

    @property
    def keys(self) -> SigningKeys:
        return self.parts.signing_keys

    async def turn(self) -> None:
        """One turn of the jobs that matter here."""
        await self.parts.replica.poll()
        await self.keys.tick()

    async def stored(self) -> list[SigningKey]:
        return await self.parts.store.signing_keys()

    async def active(self) -> SigningKey:
        (active,) = [key for key in await self.stored() if key.state is KeyState.ACTIVE]
        return active

    async def prepared(self) -> list[SigningKey]:
        return key_policy.prepared(await self.stored())

    async def ready(self) -> SigningKey:
        """A prepared key, after the time from which it may sign."""
        await self.keys.tick()
        (standby,) = await self.prepared()
        self.time.advance(max(self.keys.policy.earliest_activate_time(standby) - self.time(), timedelta(0)))
        return standby

    @property
    def signs_with(self) -> str:
        """The `kid` of what it signs now."""
        return self.parts.keyring.active.stored.kid

    @property
    def published(self) -> set[str]:
        return {str(key["kid"]) for key in self.parts.keyring.public_keys()}

    def token(self, jti: str = "a", lifetime: int = 600) -> str:
        now = int(self.time().timestamp())
        claims = {"iss": ISSUER, "sub": "s", "aud": "a", "jti": jti, "iat": now, "nbf": now, "exp": now + lifetime}
        return self.parts.keyring.sign(orjson.dumps(claims))

    async def events(self) -> list[tuple[str, str]]:
        """The ledger's rows about keys: kind and `kid`."""
        rows = await self.parts.store.ledger(0, 100_000)
        return [(row.kind, row.subject) for row in rows if row.kind.startswith("key.")]

    async def gateway(self, stack: AsyncExitStack) -> httpx.AsyncClient:
        """Its HTTP door, on a real socket."""

        async def ready() -> bool:
            return True

        server = GatewayServer(build(self.parts.pipeline, ready=ready, trusted_proxies=()), bind(ANY), SECOND)
        await server.start()
        stack.push_async_callback(server.stop)
        url = f"http://127.0.0.1:{server.port}"
        return await stack.enter_async_context(httpx.AsyncClient(base_url=url, trust_env=False))
