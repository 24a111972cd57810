"""The trust feed: what a verifier must know beside a token's signature, kept current by one stream (WatchTrust).

`TrustState` decides and does no I/O; `TrustFeed` follows the service and feeds it. A service that holds a feed refuses
a revoked token within a second and never calls per request. How stale it is it knows by the heartbeats; what to do
after STALE_AFTER without one (introspect, refuse, accept) is its service's choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, Self

from artstore.identity.client import Client
from artstore.identity.clocks import steady_seconds
from artstore.identity.connection import DEFAULT_TIMEOUT
from artstore.identity.credentials import CredentialsError
from artstore.identity.errors import IdentityError, OutOfRange
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb

STALE_AFTER = timedelta(seconds=3)
"""Three heartbeats: with fewer missing the network may just be slow."""
STALE_AFTER_SECONDS = STALE_AFTER.total_seconds()
FORGET_INTERVAL_SECONDS = 60.0
"""How often revocations of expired tokens are dropped; till then they refuse what has expired anyway."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.05, 5.0
"""The wait before connecting anew: doubled each time, and a random part of it taken, so that a fleet spreads out."""

LEEWAY_SECONDS = 30
"""How long after its `exp` a revoked token stays refused: verifiers' clocks differ, and some have a leeway."""
EPOCH_MEMORY_SECONDS = 24 * 3600 + 300
"""How long a raised epoch is remembered: no token lives for longer."""

REFUSED = (accounts_pb.STATE_SUSPENDED, accounts_pb.STATE_DELETED)


class Refusal(NamedTuple):
    """Which of an account's tokens are refused: all, or those with a lower epoch."""

    all: bool
    epoch: int
    forget_at: float | None
    """In seconds since 1970; None where it isn't known yet, and for an account of which all are refused."""


class TrustState:
    """What is trusted, as of the ledger's row `sequence`. About 150 bytes for each revoked token."""

    def __init__(self) -> None:
        self.sequence = 0
        self.hash = b""
        self.keys: dict[str, pb.JsonWebKey] = {}
        """The published keys by `kid`."""
        self._revoked: dict[str, int] = {}
        self._accounts: dict[str, Refusal] = {}
        self._seconds: dict[int, int] = {}
        self._coming: TrustState | None = None
        """A snapshot of which some chunks have come."""
        self._chunks = 0

    def refuses(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token whose signature and claims were verified is refused all the same. Takes the same time however
        many are revoked. Raises KeyError for claims that no token of the service lacks."""
        account = self._accounts.get(claims["sub"])
        if account is not None and (account.all or claims["epoch"] < account.epoch):
            return True
        return claims["jti"] in self._revoked

    @property
    def revoked_tokens(self) -> int:
        return len(self._revoked)

    def apply(self, message: pb.WatchTrustResponse) -> None:
        """Takes a message in. A snapshot takes effect with its last chunk: until then what was known holds. Raises
        ValueError for chunks that are out of order."""
        kind = message.WhichOneof("content")
        if kind == "snapshot":
            self._take_chunk(message)
            return
        if kind == "changes":
            self._take(message.changes)
        self.sequence, self.hash = message.sequence, message.hash

    def _take_chunk(self, message: pb.WatchTrustResponse) -> None:
        snapshot = message.snapshot
        if snapshot.chunk == 0:
            self._coming = TrustState()
            self._coming.sequence = message.sequence
        coming = self._coming
        if coming is None or snapshot.chunk != coming._chunks or message.sequence != coming.sequence:
            raise ValueError("a snapshot's chunk is missing")
        coming._chunks += 1
        coming._take(snapshot)
        if snapshot.last:
            self._coming = None
            self.keys, self._accounts = coming.keys, coming._accounts
            self._revoked, self._seconds = coming._revoked, coming._seconds
            self.sequence, self.hash = message.sequence, message.hash

    def _take(self, told: pb.TrustSnapshot | pb.TrustChanges) -> None:
        for key in told.keys:
            if key.state == pb.KEY_STATE_REVOKED:
                self.keys.pop(key.key.kid, None)
            else:  # copied, since a part of a message keeps all of it in memory
                self.keys[key.key.kid] = pb.JsonWebKey()
                self.keys[key.key.kid].CopyFrom(key.key)
        for token in told.revoked_tokens:
            if token.exp:
                # One number object for all tokens that expire in one second.
                self._revoked[token.jti] = self._seconds.setdefault(token.exp, token.exp)
            else:
                self._revoked.pop(token.jti, None)
        for account in told.accounts:
            if account.state in REFUSED or account.epoch:
                self._accounts[account.account_id] = Refusal(account.state in REFUSED, account.epoch, None)
            else:
                self._accounts.pop(account.account_id, None)

    def forget_expired(self, now: float) -> None:
        """Drops revocations of tokens that have expired by `now`, in seconds since 1970, and epochs that have been
        known for longer than any token lives."""
        since = now - LEEWAY_SECONDS
        self._revoked = {jti: exp for jti, exp in self._revoked.items() if exp > since}
        self._seconds = {exp: exp for exp in self._seconds if exp > since}
        for account_id, refusal in list(self._accounts.items()):
            if refusal.forget_at is not None and refusal.forget_at <= now:
                del self._accounts[account_id]
            elif refusal.forget_at is None and not refusal.all:
                self._accounts[account_id] = refusal._replace(forget_at=now + EPOCH_MEMORY_SECONDS)


class TrustFeed:
    """Follows the service's trust feed for as long as it is open, whatever happens to connections and servers.

    async with TrustFeed(client) as feed:
        await feed.ready()
        …  if feed.refuses(claims): …
    """

    def __init__(self, client: Client, *, monotonic: Callable[[], float] = steady_seconds) -> None:
        """`client` says where, and as whom: any live account. Its target may name several servers, such as
        `ipv4:10.0.0.1:50051,10.0.0.2:50051`, of which each new stream picks one."""
        self.state = TrustState()
        self.reconnects = 0
        """How often the stream had to be opened again."""
        self.last_error: IdentityError | CredentialsError | None = None
        """Why the stream last ended."""
        self.client = client
        """Who follows."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where it was opened; for threads that have something asked through `client`."""
        self._monotonic = monotonic
        self._confirmed_at: float | None = None
        self._began = time.time() - monotonic()
        self._heard_at = float("-inf")
        self._forget_at = 0.0
        self._ready, self._confirmed = asyncio.Event(), asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def ready(self) -> None:
        """Waits for the first whole snapshot."""
        await self._ready.wait()

    async def confirmed(self) -> None:
        """Waits for the first word that nothing is missing, up to a second after the snapshot. A service that begins to
        answer before that has a feed that is stale."""
        await self._confirmed.wait()

    def refuses(self, claims: Mapping[str, Any]) -> bool:
        """As `TrustState.refuses`."""
        return self.state.refuses(claims)

    @property
    def staleness(self) -> timedelta:
        """How long ago the service last said that nothing is missing; timedelta.max if it never has."""
        if self._confirmed_at is None:
            return timedelta.max
        return timedelta(seconds=self._monotonic() - self._confirmed_at)

    @property
    def stale(self) -> bool:
        confirmed_at = self._confirmed_at  # in seconds: it is asked for each token
        return confirmed_at is None or self._monotonic() - confirmed_at > STALE_AFTER_SECONDS

    @property
    def silence_seconds(self) -> float:
        """How long ago the service last said anything: what `state` holds is no older."""
        return self._monotonic() - self._heard_at

    async def _follow(self) -> None:
        wait = FIRST_RETRY_SECONDS
        while True:
            confirmed, told = self._confirmed_at, 0.0
            try:
                await self._read()
            except IdentityError as error:
                self.last_error = error
                told = error.retry_after.total_seconds() if error.retry_after else 0.0
            except CredentialsError as error:  # a file in the middle of its replacement, a cluster that is away
                self.last_error = error
            except ValueError:
                self.state.sequence = 0  # a stream that makes no sense: begin anew
            wait = FIRST_RETRY_SECONDS if self._confirmed_at != confirmed else min(2 * wait, LAST_RETRY_SECONDS)
            self.reconnects += 1
            await asyncio.sleep(told + random.uniform(0, wait))  # noqa: S311  # spreads load, guards nothing

    async def _read(self) -> None:
        """Reads one stream to its end, or until it has been silent for STALE_AFTER: its server is cut off, and another
        one may not be. Over a connection of its own, since gRPC would go on with the one it has."""
        async with self.client.again() as client, contextlib.aclosing(self._messages(client)) as messages:
            patience = STALE_AFTER + DEFAULT_TIMEOUT  # a connection and a token come first
            while True:
                try:
                    async with asyncio.timeout(patience.total_seconds()):
                        message = await anext(messages)
                except (StopAsyncIteration, TimeoutError):
                    return
                self._take(message)
                patience = STALE_AFTER

    async def _messages(self, client: Client) -> AsyncGenerator[pb.WatchTrustResponse]:
        """The stream from where this feed is; from the beginning where the service can't go on from there."""
        try:
            async for message in client.watch_trust(self.state.sequence, self.state.hash):
                yield message
        except OutOfRange:
            async for message in client.watch_trust():
                yield message

    def _take(self, message: pb.WatchTrustResponse) -> None:
        self.state.apply(message)
        self._heard_at = self._monotonic()
        kind = message.WhichOneof("content")
        if kind == "snapshot" and message.snapshot.last:
            self._ready.set()
        if kind != "heartbeat":  # the rest is what its server knows, which may be cut off itself
            return
        self._confirmed_at = self._monotonic()
        if self._ready.is_set():
            self._confirmed.set()
        if self._confirmed_at >= self._forget_at:
            self._forget_at = self._confirmed_at + FORGET_INTERVAL_SECONDS
            # A clock that leaps ahead, and back again, must not have made anything forgotten.
            self.state.forget_expired(min(time.time(), self._began + self._confirmed_at))
