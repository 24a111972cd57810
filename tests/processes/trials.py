"""How soon what one process does is known to the others, and to a verifier that follows the feed: trials over real
processes, for the tests and for `make bench-trust`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import orjson
from artstore.identity import AdminClient, Client, IdentityError, Role, ServiceAccount, TrustFeed
from joserfc.jws import extract_compact

from tests.processes.service import Installation, Service

PAUSE = 0.002
MOST_SECONDS = 10.0
RATE = 1_000_000


@dataclass(frozen=True)
class Figures:
    """Seconds of many trials."""

    seconds: list[float]

    def percentile(self, percent: float) -> float:
        """The nearest rank."""
        ordered = sorted(self.seconds)
        return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]

    def __str__(self) -> str:
        told = (f"p{percent} {self.percentile(percent) * 1000:.1f} ms" for percent in (50, 95, 99))
        return f"{', '.join(told)}, most {max(self.seconds) * 1000:.1f} ms, {len(self.seconds)} trials"


async def seen(holds: Callable[[], Awaitable[bool]]) -> float:
    """Waits until it holds, and says how many seconds that took."""
    started = time.monotonic()
    while not await holds():
        assert time.monotonic() - started < MOST_SECONDS
        await asyncio.sleep(PAUSE)
    return time.monotonic() - started


@contextlib.asynccontextmanager
async def clients(services: list[Service], client_id: str, secret: str) -> AsyncIterator[list[AdminClient]]:
    """A client of each process, as one account."""
    async with AsyncExitStack() as stack:
        made = [AdminClient(service.grpc_address, client_id=client_id, client_secret=secret) for service in services]
        yield [await stack.enter_async_context(each) for each in made]


async def account(admin: AdminClient, name: str, **fields: Any) -> Any:
    return await admin.create_service_account(ServiceAccount(name=name, role=Role.ROLE_USER, rate_limit=RATE, **fields))


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = orjson.loads(extract_compact(token.encode()).payload)
    return claims


def kid_of(token: str) -> str:
    kid: str = extract_compact(token.encode()).headers()["kid"]
    return kid


@dataclass(frozen=True)
class Trial:
    """The clients of every process: an administrator, a resource server, and the account that things happen to."""

    admins: list[AdminClient]
    watchers: list[AdminClient]
    victims: list[AdminClient]

    async def revoke(self, at: int) -> float:
        token = await self.good_token(at)
        await self.victims[at].revoke(token)
        return await self.refused_everywhere(token)

    async def suspend(self, at: int) -> float:
        token, client_id = await self.good_token(at), self.victims[at].client_id
        await self.admins[at].suspend_service_account(client_id)
        seconds = await self.refused_everywhere(token)
        await self.admins[at].activate_service_account(client_id)
        await asyncio.gather(*(seen(lambda each=each: may_issue(each)) for each in self.victims))
        return seconds

    async def change_key(self, at: int) -> float:
        """By the emergency, since a rotation waits for caches: until every process signs by the next key."""
        active = kid_of(await self.good_token(at))
        changed = await self.admins[at].revoke_signing_key(active)

        async def signs_anew(victim: Client) -> bool:
            return kid_of((await victim.issue_token()).access_token) == changed.active_key.kid

        return max(await asyncio.gather(*(seen(lambda each=each: signs_anew(each)) for each in self.victims)))

    async def good_token(self, at: int) -> str:
        """One that every process takes for good."""
        token = (await self.victims[at].issue_token()).access_token
        for watcher in self.watchers:
            assert (await watcher.introspect(token)).active
        return token

    async def refused_everywhere(self, token: str) -> float:
        async def inactive(watcher: Client) -> bool:
            return not (await watcher.introspect(token)).active

        return max(await asyncio.gather(*(seen(lambda each=each: inactive(each)) for each in self.watchers)))


async def trials(services: list[Service], installation: Installation, count: int) -> dict[str, Figures]:
    """Revokes, suspends and changes the key at one process after the other, and times how long until every process
    knows."""
    who = installation.administrator
    async with clients(services, who.client_id, who.client_secret) as admins:
        watcher = await account(admins[0], "watcher", served_audiences=["artstore"])
        victim = await account(admins[0], "victim")
        async with (
            clients(services, watcher.service_account.client_id, watcher.client_secret) as watchers,
            clients(services, victim.service_account.client_id, victim.client_secret) as victims,
        ):
            trial = Trial(admins, watchers, victims)
            kinds = {"revoke": trial.revoke, "suspend": trial.suspend, "key": trial.change_key}
            return {
                name: Figures([await act(number % len(services)) for number in range(count)])
                for name, act in kinds.items()
            }


async def may_issue(client: Client) -> bool:
    try:
        return bool((await client.issue_token()).access_token)
    except IdentityError:
        return False


async def told(feed: TrustFeed, claims: dict[str, Any]) -> bool:
    return feed.refuses(claims)


@dataclass(frozen=True)
class Followed:
    """A feed that follows one of two processes, and an account whose tokens are revoked."""

    feed: TrustFeed
    services: list[Service]
    client_id: str
    secret: str

    @property
    def at(self) -> int:
        """The process that the feed follows now."""
        (found,) = [at for at, service in enumerate(self.services) if service.metrics()["artstore_feed_subscribers"]]
        return found

    async def revocations(self, at: int, count: int) -> list[float]:
        """Revokes at a process again and again, and times how long until the feed refuses."""
        found: list[float] = []
        async with AdminClient(
            self.services[at].grpc_address, client_id=self.client_id, client_secret=self.secret
        ) as owner:
            for _ in range(count):
                token = (await owner.issue_token()).access_token
                claims = claims_of(token)
                assert not self.feed.refuses(claims)
                await owner.revoke(token)
                found.append(await seen(lambda claims=claims: told(self.feed, claims)))
        return found

    async def lose_its_server(self) -> int:
        """Kills the process that is followed, and says which is left."""
        killed = await asyncio.to_thread(lambda: self.at)
        self.services[killed].kill()
        return 1 - killed


@contextlib.asynccontextmanager
async def followed(services: list[Service], installation: Installation) -> AsyncIterator[Followed]:
    who = installation.administrator
    async with clients(services, who.client_id, who.client_secret) as admins:
        made = await account(admins[1], f"followed-{uuid4()}")
    client_id, secret = made.service_account.client_id, made.client_secret
    target = "ipv4:" + ",".join(service.grpc_address for service in services)
    async with Client(target, client_id=client_id, client_secret=secret) as follower, TrustFeed(follower) as feed:
        await feed.ready()
        yield Followed(feed, services, client_id, secret)


async def verifier_trials(
    services: list[Service], installation: Installation, count: int
) -> tuple[Figures, Figures, TrustFeed]:
    """Revokes at the process that a verifier's feed doesn't follow, of two, and times how long until the verifier
    refuses: while both run, and from the moment on that the one it follows is killed."""
    async with followed(services, installation) as verifier:
        first = await verifier.revocations(1 - await asyncio.to_thread(lambda: verifier.at), count)
        left = await verifier.lose_its_server()
        second = await verifier.revocations(left, count)
        return Figures(first), Figures(second), verifier.feed


async def failover(services: list[Service], installation: Installation) -> float:
    """How long the first revocation after the kill takes to be known: what the change of servers costs."""
    async with followed(services, installation) as verifier:
        left = await verifier.lose_its_server()
        (seconds,) = await verifier.revocations(left, 1)
        assert verifier.feed.reconnects
        return seconds
