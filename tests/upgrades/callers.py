"""Callers of two replicas of different releases, as a process of their own with the client library of either release:
`python tests/upgrades/callers.py`, which imports nothing but that library.

Standard input is one JSON object in a line: `old`, `new` (addresses), `seconds`, `issuer`, `audience`, `callers` (pairs
of client_id and secret), `rotated` (one more, with its `id`), `administrator` (a pair); then, whenever the replica of
the old release is about to stop, a line more. Standard output is what came of it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from artstore import identity
from artstore.identity import AdminClient, Client, IdentityError, TokenRevoked, TokenVerifier, TrustFeed

PAUSE_SECONDS = 0.01
ATTEMPTS = 5
RETRY_SECONDS = 0.05
KNOWN_SECONDS = 10.0
"""How long what one replica did may take to be known at the other before that counts as a failure."""
CROSS_SECONDS = 0.3
ROTATION_SECONDS = 3.0


class Callers:
    """What they do, and what came of it."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.task = task
        self.both = f"ipv4:{task['old']},{task['new']}"
        self.old_stops = asyncio.Event()
        self.ends = 0.0
        self.done: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.slowest = 0.0
        self.kids: set[str] = set()
        self.stack = AsyncExitStack()
        self.verifier: TokenVerifier
        self.feed: TrustFeed
        self.feeds: list[TrustFeed] = []
        """One that follows the old release alone, and one that follows the new one."""

    async def run(self) -> dict[str, Any]:
        async with self.stack, asyncio.TaskGroup() as group:
            client = await self.client(Client, self.both, self.task["callers"][0])
            self.feed = await self.stack.enter_async_context(TrustFeed(client))
            await self.feed.confirmed()
            for pinned in await self.pair(Client, self.task["callers"][0]):
                self.feeds.append(await self.stack.enter_async_context(TrustFeed(pinned)))
                await self.feeds[-1].confirmed()
            issuer, audience = self.task["issuer"], self.task["audience"]
            self.verifier = TokenVerifier(issuer, audience=audience, trust=self.feed, introspect=client)
            work = [(PAUSE_SECONDS, await self.issuing(pair)) for pair in self.task["callers"]]
            work.append((CROSS_SECONDS, await self.revoking(self.task["callers"][0])))
            work.append((CROSS_SECONDS, await self.rotating_secrets()))
            work.append((ROTATION_SECONDS, await self.rotating_keys()))
            self.ends = time.monotonic() + self.task["seconds"]
            heard = group.create_task(self.hear())
            for pause, each in work:
                group.create_task(self.repeat(pause, each))
            print("ready", flush=True)
            await asyncio.sleep(self.task["seconds"])
            heard.cancel()
        return {
            "library": identity.__file__,
            "done": self.done,
            "failures": self.failures,
            "retries": self.retries,
            "slowest_to_be_known_seconds": round(self.slowest, 3),
            "keys": sorted(self.kids),
            "feed_reconnects": self.feed.reconnects,
        }

    async def hear(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.readline()
        self.old_stops.set()

    async def client(self, kind: Any, target: str, pair: list[str]) -> Any:
        """A client with a connection of its own, to one of the addresses of its target."""
        made = kind(target, client_id=pair[0], client_secret=pair[1], timeout=timedelta(seconds=60))
        return await self.stack.enter_async_context(made.again())

    async def pair(self, kind: Any, account: list[str]) -> list[Any]:
        """One at the old release, one at the new."""
        return [await self.client(kind, self.task[which], account) for which in ("old", "new")]

    def two(self, clients: list[Any]) -> tuple[Any, Any]:
        """Who does something, and who must know of it; the new release alone once the old one stops."""
        if self.old_stops.is_set():
            return clients[1], clients[1]
        here, there = random.sample(clients, 2)
        return here, there

    async def repeat(self, pause: float, work: Callable[[], Awaitable[None]]) -> None:
        while time.monotonic() < self.ends:
            stopping = self.old_stops.is_set()
            try:
                await work()
            except (IdentityError, identity.TokenRefused, AssertionError) as error:
                # What was under way between two replicas as one of them stopped isn't an authentication that failed.
                if stopping is self.old_stops.is_set() or not unanswered(error):
                    self.failures[f"{work.__name__}: {type(error).__name__} {error}"] += 1
            await asyncio.sleep(pause)

    async def token(self, client: Any) -> str:
        token: str = (await client.issue_token()).access_token
        self.done["tokens"] += 1
        self.kids.add(part(token, 0)["kid"])
        return token

    async def token_of_any(self, client: Any) -> str:
        """A token, as a library's token source gets it: asked for again where nobody answered. Nothing excuses it."""
        for _ in range(ATTEMPTS):
            try:
                return await self.token(client)
            except IdentityError as error:
                if not unanswered(error):
                    raise
                self.retries[error.code.name] += 1
                await asyncio.sleep(RETRY_SECONDS)
        raise AssertionError(f"no token after {ATTEMPTS} attempts")

    async def known(self, holds: Callable[[], Awaitable[bool]]) -> None:
        began = time.monotonic()
        while not await holds():
            assert time.monotonic() < began + KNOWN_SECONDS, "not known in time"
            await asyncio.sleep(0.005)
        self.slowest = max(self.slowest, time.monotonic() - began)

    async def issuing(self, pair: list[str]) -> Callable[[], Awaitable[None]]:
        """Tokens from whichever replica, verified by the library, and by the other replica."""
        anywhere = await self.client(Client, self.both, pair)
        each = await self.pair(Client, pair)

        async def issue() -> None:
            token = await self.token_of_any(anywhere)
            await self.verifier.verify(token)
            self.done["verified"] += 1
            here, there = self.two(each)
            token = await self.token(here)
            assert (await there.introspect(token)).active, "not active at the other"
            self.done["introspected"] += 1

        return issue

    async def revoking(self, pair: list[str]) -> Callable[[], Awaitable[None]]:
        """What one revokes the other refuses, a verifier that follows whichever feed, and the feeds of both."""
        each = await self.pair(Client, pair)

        async def refused(token: str) -> bool:
            try:
                await self.verifier.verify(token)
            except TokenRevoked:
                return True
            return False

        async def told(feed: TrustFeed, token: str) -> bool:
            return feed.refuses(part(token, 1))

        async def inactive(there: Any, token: str) -> bool:
            return not (await there.introspect(token)).active

        async def revoke() -> None:
            here, there = self.two(each)
            token = await self.token(here)
            await self.verifier.verify(token)
            await here.revoke(token)
            await self.known(lambda: inactive(there, token))
            await self.known(lambda: refused(token))
            for feed in self.feeds[self.old_stops.is_set() :]:
                await self.known(lambda feed=feed: told(feed, token))
            self.done["revoked"] += 1

        return revoke

    async def rotating_secrets(self) -> Callable[[], Awaitable[None]]:
        """A secret that one has made is good at the other at once, and the one before it still."""
        account = self.task["rotated"]
        admins = await self.pair(AdminClient, self.task["administrator"])
        held = [account["client_secret"]]
        whole = True

        async def alone(admin: Any, secret: str) -> None:
            """Revokes every secret but this one."""
            for each in (await admin.get_service_account(account["id"])).secrets:
                if each.id not in secret:
                    await admin.revoke_secret(account["id"], each.id)

        async def rotate() -> None:
            nonlocal whole
            here, there = self.two(admins)
            if not whole:  # a stop in the middle has left two, which both were used
                await alone(here, held[-1])
            whole = False
            made = await here.rotate_secret(account["id"], overlap=timedelta(hours=1))
            for secret in (made.client_secret, held[-1]):
                async with Client(there.target, client_id=account["client_id"], client_secret=secret) as client:
                    await self.token(client)
            held.append(made.client_secret)
            await alone(there, made.client_secret)
            whole = True
            self.done["secrets rotated"] += 1

        return rotate

    async def rotating_keys(self) -> Callable[[], Awaitable[None]]:
        """Either has the next key sign; tokens of every key are verified by the others above."""
        admins = await self.pair(AdminClient, self.task["administrator"])

        async def change() -> None:
            here, _ = self.two(admins)
            await here.rotate_signing_key()
            self.done["keys rotated"] += 1

        return change


def unanswered(error: Exception) -> bool:
    """Whether nobody has taken the call up: a server that stops cancels those that still wait for their turn."""
    return isinstance(error, IdentityError) and error.code.name in ("UNAVAILABLE", "CANCELLED")


def part(token: str, number: int) -> dict[str, Any]:
    """A token's header (0) or claims (1), unverified."""
    text = token.split(".")[number]
    said: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return said


if __name__ == "__main__":
    print(json.dumps(asyncio.run(Callers(json.loads(sys.stdin.readline())).run())))
