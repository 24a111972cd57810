"""Rotations under constant issuing and verifying, on a clock that the simulation moves: processes on one database, and
verifiers that know nothing but HTTP's rules. Nothing here knows how keys are rotated."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import jwt

from artstore_grpc import installation as setup
from tests.keys.stand import ISSUER, SECOND, FakeTime, Installation, Process, operator

JWKS = "/.well-known/jwks.json"
ALL = ["RS256", "RS384", "RS512", "PS256", "ES256", "EdDSA"]
STEPS = (10, 50)
"""Seconds between two looks at the world: none of them divides any of the settings."""
TIMELESS: Any = dict.fromkeys(("verify_exp", "verify_iat", "verify_nbf", "verify_aud"), False)


@dataclass
class Verifier:
    """A service that keeps the key set for as long as `Cache-Control` says, and never asks because of a `kid` that it
    doesn't know: what it can't verify it refuses."""

    name: str
    time: FakeTime
    keys: dict[str, jwt.PyJWK] = field(default_factory=dict)
    until: float = 0.0
    fetches: int = 0
    refused: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    async def fetch(self, door: httpx.AsyncClient) -> None:
        """Asks anew once the key set has gone stale (RFC 9111 §4.2), counted from the request."""
        asked = self.time.monotonic()
        if asked < self.until:
            return
        response = await door.get(JWKS)
        self.keys = {str(key.key_id): key for key in jwt.PyJWKSet.from_dict(response.json()).keys}
        self.until = asked + int(response.headers["cache-control"].removeprefix("public, max-age="))
        self.fetches += 1

    def verify(self, token: str) -> None:
        """A live token; what time it is PyJWT can't be told."""
        kid = jwt.get_unverified_header(token)["kid"]
        key = self.keys.get(kid)
        if key is None:
            self.unknown.append(f"{self.name} at {self.time.time}: {kid}")
            return
        try:
            jwt.decode(token, key, algorithms=[str(key.algorithm_name)], issuer=ISSUER, options=TIMELESS)
        except jwt.PyJWTError as error:
            self.refused.append(f"{self.name} at {self.time.time}: {error!r}")


@dataclass
class World:
    """Everything there is, with one source of chance."""

    installation: Installation
    chance: random.Random
    stack: AsyncExitStack
    settings: dict[str, Any]
    processes: list[Process] = field(default_factory=list)
    doors: list[httpx.AsyncClient] = field(default_factory=list)
    stacks: list[AsyncExitStack] = field(default_factory=list)
    tokens: list[tuple[float, str]] = field(default_factory=list)
    """Live tokens, and when they expire."""
    issued: int = 0
    administrator: Any = None

    def __post_init__(self) -> None:
        self.time = self.installation.time
        self.verifiers = [Verifier(name, self.time) for name in ("first", "second", "both")]

    async def open(self, at: int, **settings: Any) -> None:
        """Starts, or restarts, one of the processes with other settings."""
        if at < len(self.stacks):
            await self.stacks[at].aclose()
        else:
            self.stacks.append(AsyncExitStack())
            self.processes.append(None)  # type: ignore[arg-type]
            self.doors.append(None)  # type: ignore[arg-type]
            self.stack.push_async_callback(lambda: self.stacks[at].aclose())
        self.stacks[at] = AsyncExitStack()
        self.processes[at] = await self.stacks[at].enter_async_context(
            self.installation.process(**(self.settings | settings))
        )
        self.stacks[at].push_async_callback(self.processes[at].keys.resign)
        self.doors[at] = await self.processes[at].gateway(self.stacks[at])
        if self.administrator is None:
            parts = self.processes[at].parts
            self.administrator = await setup.bootstrap(parts.store, parts.accounts)

    async def step(self) -> None:
        """Time passes; caches that have expired are filled, before or after the processes hear of what happened."""
        self.time.advance(timedelta(seconds=self.chance.randint(*STEPS), milliseconds=self.chance.randint(0, 999)))
        await self.fetch(0.5)
        for process in self.chance.sample(self.processes, len(self.processes)):
            await process.turn()
        for process in self.processes[1:] and self.processes:  # what one has done, the others hear of
            await process.parts.replica.poll()
        await self.issue()
        await self.fetch(1.0)
        self.verify()

    async def fetch(self, share: float) -> None:
        """Each verifier asks with this probability, if it has to ask."""
        sources = [self.doors[0], self.doors[-1], self.chance.choice(self.doors)]
        for verifier, door in zip(self.verifiers, sources, strict=True):
            if self.chance.random() < share:
                await verifier.fetch(door)

    async def issue(self) -> None:
        for door in self.doors:
            who = self.administrator
            answer = await door.post(
                "/oauth2/token", data={"grant_type": "client_credentials"}, auth=(who.client_id, who.client_secret)
            )
            assert answer.status_code == 200, answer.text
            body = answer.json()
            self.tokens.append((self.time.monotonic() + body["expires_in"] - 1, body["access_token"]))
            self.issued += 1

    def verify(self) -> None:
        """The newest tokens, the oldest one, and one between, by everybody."""
        now = self.time.monotonic()
        self.tokens = [each for each in self.tokens if each[0] > now]
        chosen = [*self.tokens[-len(self.doors) :], self.tokens[0], self.chance.choice(self.tokens)]
        for _, token in chosen:
            for verifier in self.verifiers:
                verifier.verify(token)

    @property
    def refused(self) -> list[str]:
        return [each for verifier in self.verifiers for each in verifier.refused]

    @property
    def unknown(self) -> list[str]:
        return [each for verifier in self.verifiers for each in verifier.unknown]

    async def rotations(self) -> int:
        return sum(kind == "key.activated" for kind, _ in await self.processes[0].events())


async def rotated(url: str, rotations: int, algorithms: list[str], *, every: int, processes: int) -> World:
    """A world in which so many keys took over; every so many rotations the processes restart, one after the other, with
    the next algorithm. Some rotations are asked for, most are due."""
    settings = {"key_rotation_interval": 120 * SECOND}
    async with AsyncExitStack() as stack:
        world = World(Installation(url), random.Random(rotations), stack, settings)
        for at in range(processes):
            await world.open(at, signing_algorithm=algorithms[0])
        done, moved, seen = 0, 0, world.processes[0].signs_with
        while done < rotations:
            await world.step()
            if world.chance.random() < 0.05:
                await world.chance.choice(world.processes).keys.rotate(operator())
            if world.processes[0].signs_with != seen:
                seen = world.processes[0].signs_with
                done += 1
            if done // every > moved:
                moved += 1
                for at in range(processes):
                    await world.open(at, signing_algorithm=algorithms[moved % len(algorithms)])
                    for _ in range(3):
                        await world.step()
        assert await world.rotations() >= rotations
        return world
