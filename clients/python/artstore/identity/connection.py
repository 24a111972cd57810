"""A channel to the service and the credentials of one account: what every method of the client is built on.

Knows how a call is made (deadline, metadata, errors) and nothing of what is called.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Self, TypeVar
from urllib.parse import quote_plus

import grpc
from artstore.identity import assertions
from artstore.identity.assertions import KeyText
from artstore.identity.channels import Place
from artstore.identity.clocks import steady_seconds
from artstore.identity.credentials import Credentials, CredentialsProvider, StaticCredentials
from artstore.identity.discovered_channel import DiscoveredChannel
from artstore.identity.discovery import Discovery
from artstore.identity.errors import IdentityError, from_rpc_error
from artstore.identity.load_balancing import LoadBalancing
from artstore.identity.retries import UNANSWERED, Budget, RetryPolicy, may_be_repeated, retry_after

Answer = TypeVar("Answer")
Metadata = tuple[tuple[str, str], ...]

DEFAULT_TIMEOUT = timedelta(seconds=10)
"""Per call. A healthy service answers in milliseconds; a new secret's hash takes a quarter of a second."""


def basic_authorization(client_id: str, client_secret: str) -> str:
    """The value of an `authorization` header (RFC 6749 §2.3.1): form-urlencoded each, then joined and in base64."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


class Connection:
    """A channel, opened by `async with`, and the account that calls through it."""

    def __init__(
        self,
        target: str = "",
        *,
        discovery: Discovery | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        private_key: KeyText | None = None,
        issuer: str | None = None,
        credentials: CredentialsProvider | Credentials | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        channel_credentials: grpc.ChannelCredentials | None = None,
        load_balancing: LoadBalancing | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        """Connects to `target`, a gRPC name such as `127.0.0.1:50051` or `dns:///identity.internal:50051`, on the first
        call; in its place a `discovery` may say where the replicas are, such as `RedisReplicas`.

        `client_id` and `client_secret` are the account's; public methods need none. In place of a secret an account may
        have a `private_key` (a JWK or PEM; RSA, P-256 or Ed25519) whose public half is registered with it: each call
        then makes an assertion for `issuer`, the service's issuer identifier. None: what the service says it is; give
        it where the key is used elsewhere too, since a false service could have an assertion for the other made.
        An account that its client certificate authenticates (RFC 8705 §2.1) needs neither: `client_id`, and the
        certificate in `channel_credentials`. In place of all these `credentials` may say who calls and by what, asked
        before each call that needs it: a `CredentialsFile` is right after a rotation too. `timeout` is the deadline of
        each call, its retries included. `channel_credentials` are for TLS; None is plain text. `load_balancing` says
        how calls are spread over several addresses, and `retry` how often a call is made again that nobody answered.
        Raises ValueError for a key that can't be read, for a secret beside a key, for a target beside a discovery, and
        for a discovery that names no server to verify by TLS.
        """
        if credentials is not None and (client_id or client_secret or private_key is not None):
            raise ValueError("give credentials, or client_id with client_secret or private_key.")
        if client_secret and private_key is not None:
            raise ValueError("give client_secret or private_key, not both.")
        if timeout <= timedelta(0):
            raise ValueError("timeout must be positive.")
        self.place = Place(target, discovery, channel_credentials, load_balancing)
        """Where the service is."""
        self.client_id = client_id or ""
        self._client_secret = client_secret or ""
        self._private_key = None if private_key is None else assertions.private_key(private_key)
        self._issuer = issuer or ""
        self._timeout_seconds = timeout.total_seconds()
        self._provider = StaticCredentials(credentials) if isinstance(credentials, Credentials) else credentials
        self._retry = retry or RetryPolicy()
        self._budget = Budget()
        self._opened: grpc.aio.Channel | None = None
        self._apart = False

    async def __aenter__(self) -> Self:
        self._opened = self.place.open(apart=self._apart)
        if isinstance(self._opened, DiscoveredChannel):
            try:
                await self._opened.known()
            except BaseException:  # nobody else closes what was not entered
                await self.close()
                raise
        return self

    @property
    def target(self) -> str:
        """As it was given; empty where a discovery was."""
        return self.place.target

    @property
    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """What the channel is secured with; None is plain text."""
        return self.place.credentials

    def again(self) -> Self:
        """The same, not opened yet, that shares no connection with this one: of a target's several addresses it may
        take another."""
        other = copy.copy(self)
        other._opened, other._apart = None, True
        return other

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the channel; calls in flight are cancelled."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    @property
    def channel(self) -> grpc.aio.Channel:
        """The open channel, for stubs of other services on the same server, such as `grpc.health.v1`."""
        if self._opened is None:
            raise RuntimeError("The client is not open: use `async with Client(…) as client`.")
        return self._opened

    async def _ask_provider(self) -> None:
        """Takes the account as its provider has it now, if it has one: its secret may have been rotated."""
        if self._provider is None:
            return
        given = await asyncio.to_thread(self._provider.current)  # reads a file, or asks a cluster
        self.client_id, self._client_secret, self._private_key = given.client_id, given.client_secret, given.private_key
        self._issuer = self._issuer or given.issuer

    async def call(self, method: Callable[..., Awaitable[Answer]], request: Any, metadata: Metadata = ()) -> Answer:
        """Calls a stub's method within the timeout, and again by the RetryPolicy. Raises IdentityError."""
        left = self._timeout_seconds
        deadline = steady_seconds() + left
        attempts = 0
        while True:
            attempts += 1
            try:
                answer = await method(request, timeout=left, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error)
                wait = self._wait(request, failure, error.trailing_metadata() or (), attempts)
                if wait is None or steady_seconds() + wait >= deadline:
                    raise failure from error
            else:
                self._budget.succeeded()
                return answer
            await asyncio.sleep(wait)
            left = deadline - steady_seconds()
            if self._opened is None or left <= 0:  # closed meanwhile; or a busy loop came back too late
                raise failure
            self._renew_assertion(request)

    def _wait(self, request: Any, failure: IdentityError, trailing: Any, attempts: int) -> float | None:
        """Seconds until the next attempt; None where there is none."""
        if failure.code not in UNANSWERED:
            return None
        self._budget.failed()
        told = retry_after(failure, trailing)
        over = attempts >= self._retry.max_attempts or self._budget.spent
        if told is None or over or not may_be_repeated(request):
            return None
        return max(self._retry.wait_seconds(attempts, random.random()), told)  # noqa: S311  # spreads load, guards nothing

    def _renew_assertion(self, request: Any) -> None:
        """An assertion is good for one call (RFC 7523 §3, `jti`), which the one that wasn't answered may have been."""
        if self._private_key is not None and hasattr(request, "client_assertion") and request.client_assertion:
            request.client_assertion = assertions.client_assertion(self.client_id, self._issuer, self._private_key)
