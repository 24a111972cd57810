"""A channel to the service and the credentials of one account: what every method of the client is built on.

Knows how a call is made (deadline, metadata, errors) and nothing of what is called.
"""

from __future__ import annotations

import asyncio
import base64
import copy
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Self, TypeVar
from urllib.parse import quote_plus

import grpc
from artstore.identity import assertions
from artstore.identity.assertions import KeyText
from artstore.identity.credentials import Credentials, CredentialsProvider, StaticCredentials
from artstore.identity.errors import from_rpc_error

Answer = TypeVar("Answer")
Metadata = tuple[tuple[str, str], ...]

DEFAULT_TIMEOUT = timedelta(seconds=10)
"""Per call. A healthy service answers in milliseconds; a new secret's hash takes a quarter of a second."""

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Well over the server's minimum ping interval: a client that pings more often is cut off (too_many_pings).
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A page of 1,000 accounts at every bound is just under 16 MiB; gRPC's own default is 4 MiB.
    ("grpc.max_receive_message_length", 20 * 1024 * 1024),
    # The service is inside the network, and a proxy that the environment names for the web is not for it.
    ("grpc.enable_http_proxy", 0),
    # gRPC's own is two minutes: so long a service that is back would be taken for down.
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
"""Options of every channel that the client opens."""


def basic_authorization(client_id: str, client_secret: str) -> str:
    """The value of an `authorization` header (RFC 6749 §2.3.1): form-urlencoded each, then joined and in base64."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


APART: tuple[tuple[str, Any], ...] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", '{"loadBalancingConfig":[{"pick_first":{"shuffleAddressList":true}}]}'),
)
"""Options of a channel that shares no connection with others, and takes any of its target's addresses."""


def open_channel(
    target: str, credentials: grpc.ChannelCredentials | None = None, *, apart: bool = False
) -> grpc.aio.Channel:
    """A channel with the client's options; without `credentials` in plain text."""
    options = CHANNEL_OPTIONS + APART if apart else CHANNEL_OPTIONS
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


def open_sync_channel(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
    """The same for threads."""
    options = CHANNEL_OPTIONS + APART
    if credentials is None:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, credentials, options=options)


class Connection:
    """A channel, opened by `async with`, and the account that calls through it."""

    def __init__(
        self,
        target: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        private_key: KeyText | None = None,
        issuer: str | None = None,
        credentials: CredentialsProvider | Credentials | None = None,
        timeout: timedelta = DEFAULT_TIMEOUT,
        channel_credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        """Connects to `target`, a gRPC name such as `127.0.0.1:50051`, on the first call.

        `client_id` and `client_secret` are the account's; public methods need none. In place of a secret an account may
        have a `private_key` (a JWK or PEM; RSA, P-256 or Ed25519) whose public half is registered with it: each call
        then makes an assertion for `issuer`, the service's issuer identifier. None: what the service says it is; give
        it where the key is used elsewhere too, since a false service could have an assertion for the other made.
        An account that its client certificate authenticates (RFC 8705 §2.1) needs neither: `client_id`, and the
        certificate in `channel_credentials`. In place of all these `credentials` may say who calls and by what, asked
        before each call that needs it: a `CredentialsFile` is right after a rotation too. `timeout` is the deadline of
        each call. `channel_credentials` are for TLS; None is plain text. Raises ValueError for a key that can't be
        read, and for a secret beside a key.
        """
        if credentials is not None and (client_id or client_secret or private_key is not None):
            raise ValueError("give credentials, or client_id with client_secret or private_key.")
        if client_secret and private_key is not None:
            raise ValueError("give client_secret or private_key, not both.")
        if timeout <= timedelta(0):
            raise ValueError("timeout must be positive: gRPC reads zero as no deadline at all.")
        self.target = target
        self.client_id = client_id or ""
        self._client_secret = client_secret or ""
        self._private_key = None if private_key is None else assertions.private_key(private_key)
        self._issuer = issuer or ""
        self._timeout_seconds = timeout.total_seconds()
        self._provider = StaticCredentials(credentials) if isinstance(credentials, Credentials) else credentials
        self.channel_credentials = channel_credentials
        """What the channel is secured with; None is plain text."""
        self._opened: grpc.aio.Channel | None = None
        self._apart = False

    async def __aenter__(self) -> Self:
        self._opened = open_channel(self.target, self.channel_credentials, apart=self._apart)
        return self

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

    async def call(self, method: Callable[..., Awaitable[Answer]], request: object, metadata: Metadata = ()) -> Answer:
        """Calls a stub's method within the timeout. Raises IdentityError."""
        try:
            return await method(request, timeout=self._timeout_seconds, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
