"""Where a service's replicas are, said by something that knows better than DNS; and what gRPC is told of it.

A discovery is asked again and again and blocks for as long as it takes: whoever asks does so in a thread. Python's gRPC
takes no resolvers but its own, so that a set of replicas becomes a target of several addresses, and another set another
channel (discovered_channel.py).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Protocol


class Discovery(Protocol):
    """Says where the replicas are. Safe to be asked by several threads; one object may serve many clients."""

    @property
    def refresh(self) -> timedelta:
        """How often it is worth asking."""
        ...

    @property
    def server_name(self) -> str:
        """The name that the replicas' certificates are verified against, since an address says nothing of who is there;
        empty where there is no TLS."""
        ...

    def current(self) -> tuple[str, ...]:
        """`host:port` of each replica that is to be called, an IPv6 host in brackets. Where it can't be known now, what
        was known last; empty where nothing ever was. Raises nothing."""
        ...


def target_of(addresses: Iterable[str]) -> str:
    """A gRPC target of all the addresses: `ipv4:10.0.0.1:50051,10.0.0.2:50051`. Names are looked up, which blocks;
    those that have no address are left out. Empty where nothing is left."""
    found = sorted({endpoint for address in addresses for endpoint in _endpoints(address)})
    if not found:
        return ""
    if all(isinstance(host, IPv4Address) for host, _ in found):
        return "ipv4:" + ",".join(f"{host}:{port}" for host, port in found)
    # One target has one kind of address: the others as RFC 4291 §2.5.5.2 maps them.
    return "ipv6:" + ",".join(f"[{_mapped(host)}]:{port}" for host, port in found)


class _Endpoint(tuple[IPv4Address | IPv6Address, int]):
    """An address and a port, in an order of both kinds of address."""

    __slots__ = ()

    def __lt__(self, other: Any) -> bool:
        return (self[0].version, int(self[0]), self[1]) < (other[0].version, int(other[0]), other[1])


def _endpoints(address: str) -> Iterable[_Endpoint]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not (port.isascii() and port.isdigit()):
        return []
    try:
        return [_Endpoint((ip_address(host), int(port)))]
    except ValueError:
        pass
    try:
        looked_up = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError):
        return []
    # A link-local address' zone is this machine's own, and not for gRPC.
    return [_Endpoint((ip_address(str(where[0]).partition("%")[0]), int(port))) for *_, where in looked_up]


def _mapped(host: IPv4Address | IPv6Address) -> str:
    return f"::ffff:{host}" if isinstance(host, IPv4Address) else str(host)
