"""Where a call came from: the peer's address, or what trusted proxies say of it (RFC 7239, `X-Forwarded-For`).

Each proxy adds the address it saw on the right, so the list is read from the right and only as far as those who wrote
it are trusted; what stands left of that is whatever a stranger typed. Pure: no I/O, and both doors use it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOPS = 32
"""Entries looked at, from the right; a longer chain is a stranger's."""


def source_address(peer: str, forwarded_values: Iterable[str], trusted: tuple[Network, ...]) -> str:
    """The caller's address.

    `peer` is the address of the connection without its port; `forwarded_values` are the values of `X-Forwarded-For`
    and `Forwarded` as they came, each told by its form. They are believed only from a peer in `trusted`; the right-most
    address outside `trusted` is the caller's. Where both headers came and disagree, one of them was not written by the
    proxy: the peer's address is all that is certain.
    """
    address = parsed(peer)
    if address is None or not trusts(peer, trusted):
        return printed(peer)
    listed, rfc7239 = hops(forwarded_values)
    callers = {untrusted(chain, trusted) for chain in (listed, rfc7239) if chain}
    return str(callers.pop() or address) if len(callers) == 1 else str(address)


@lru_cache(maxsize=4096)
def trusts(peer: str, trusted: tuple[Network, ...]) -> bool:
    """Whether a peer's address is in one of the networks."""
    address = parsed(peer)
    return address is not None and within(address, trusted)


@lru_cache(maxsize=4096)
def printed(peer: str) -> str:
    """A peer's address as it is logged; what is none as it came. Remembered, as `parsed` is."""
    return str(parsed(peer) or peer)


@lru_cache(maxsize=4096)
def network(source: str) -> str:
    """The network that one caller is taken to have: an IPv6 address's /64, which a host gets whole (RFC 6177 §2); of
    IPv4 the address. What is none is as it came."""
    address = parsed(source)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address or source)


def hops(values: Iterable[str]) -> tuple[list[str], list[str]]:
    """The addresses of `X-Forwarded-For` values and those of `Forwarded` values, each in the order they came."""
    listed: list[str] = []
    rfc7239: list[str] = []
    for value in values:
        for element in value.split(","):
            if "=" in element:
                rfc7239.append(forwarded_for(element))
            elif element.strip():
                listed.append(element)
    return listed, rfc7239


def forwarded_for(element: str) -> str:
    """The `for` of one `Forwarded` element (RFC 7239 §4); empty when it has none."""
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


def untrusted(chain: list[str], trusted: tuple[Network, ...]) -> Address | None:
    """The right-most address outside `trusted`, else the left-most known one. An entry that is no address (RFC 7239
    §6: `unknown`, `_hidden`) ends the reading: who stood left of it can't be told."""
    found: Address | None = None
    for entry in reversed(chain[-MAX_HOPS:]):
        address = parsed(entry)
        if address is None:
            return found
        found = address
        if not within(address, trusted):
            return found
    return found


def within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


@lru_cache(maxsize=4096)
def parsed(text: str) -> Address | None:
    """An IP address with or without port, brackets and zone; an IPv4 one mapped into IPv6 is the IPv4 one.
    Remembered, since a connection's address comes with each of its calls."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
