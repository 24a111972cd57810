"""How channels to the service are opened: where it is, by what security, with which of gRPC's options."""

from __future__ import annotations

from typing import Any

import grpc
from artstore.identity.discovered_channel import DiscoveredChannel
from artstore.identity.discovery import Discovery, target_of
from artstore.identity.load_balancing import CONFIGURATIONS, PICK_FIRST, LoadBalancing

CHANNEL_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Well over the server's minimum ping interval: a client that pings more often is cut off (too_many_pings).
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A page of 1,000 accounts at every bound is just under 16 MiB; gRPC's own default is 4 MiB.
    ("grpc.max_receive_message_length", 20 * 1024 * 1024),
    # The service is inside the network, and a proxy that the environment names for the web is not for it.
    ("grpc.enable_http_proxy", 0),
    # Where a connection ends before a server has begun with a call, gRPC sends it by another one; retries.py does more.
    ("grpc.enable_retries", 1),
)
"""Options of every channel that the client opens, beside those of its LoadBalancing."""

UNNAMED = "identity"
"""The `:authority` of calls to discovered replicas in plain text."""

APART: tuple[tuple[str, Any], ...] = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config", CONFIGURATIONS[PICK_FIRST]),
)
"""Options of a channel that shares no connection with others, and takes any of its target's addresses."""


class Place:
    """Where the service is, and how a channel to it is opened: a target that gRPC resolves, or a discovery."""

    def __init__(
        self,
        target: str,
        discovery: Discovery | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        balancing: LoadBalancing | None = None,
    ) -> None:
        """`credentials` are for TLS; None is plain text. Raises ValueError."""
        if bool(target) == (discovery is not None):
            raise ValueError("give a target, or a discovery.")
        if discovery is not None and credentials is not None and not discovery.server_name:
            raise ValueError("give the discovery a server_name: an address says nothing of whose certificate is right.")
        self.target = target
        self.discovery = discovery
        self.credentials = credentials
        self._options = (*CHANNEL_OPTIONS, *(balancing or LoadBalancing()).options())
        if discovery is not None:
            # Also in plain text: else it would be one of the addresses, which proxies and logs would take for a name.
            self._options += (("grpc.default_authority", discovery.server_name or UNNAMED),)

    def open(self, *, apart: bool = False) -> grpc.aio.Channel:
        """A channel for asyncio, of the running event loop; `apart`: of connections that it shares with no other."""

        def opened(target: str) -> grpc.aio.Channel:
            options = options_of(self._options, apart=apart)
            if self.credentials is None:
                return grpc.aio.insecure_channel(target, options=options)
            return grpc.aio.secure_channel(target, self.credentials, options=options)

        if self.discovery is None:
            return opened(self.target)
        channel = DiscoveredChannel(self.discovery, opened)
        channel.follow()
        return channel

    def open_sync(self, target: str) -> grpc.Channel:
        """A channel for threads to a target of this place, apart from others."""
        options = options_of(self._options, apart=True)
        if self.credentials is None:
            return grpc.insecure_channel(target, options=options)
        return grpc.secure_channel(target, self.credentials, options=options)

    def current_target(self) -> str:
        """The target as it is now, which may block; empty where no replica is known."""
        return self.target if self.discovery is None else target_of(self.discovery.current())

    def __str__(self) -> str:
        return self.target or "discovered replicas"


def options_of(options: tuple[tuple[str, Any], ...], *, apart: bool) -> tuple[tuple[str, Any], ...]:
    """Each option once, since of two gRPC would take either."""
    return tuple(dict((*options, *(APART if apart else ()))).items())


def open_channel(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """A channel with the client's options; without `credentials` in plain text."""
    return Place(target, credentials=credentials).open()
