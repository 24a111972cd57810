"""Sockets that listen, or that keep an address for others to listen at. Knows nothing of what is served there."""

from __future__ import annotations

import socket

from artstore_grpc.errors import CannotBind
from artstore_grpc.settings import Address

BACKLOG = 1024


def bind(address: Address, *, shared: bool = False) -> socket.socket:
    """A listening socket that doesn't block; port 0 is any free one. Raises CannotBind where the port is taken: without
    SO_REUSEPORT two servers can never share it silently. `shared`: among processes that all ask for that."""
    made = bound(address, shared=shared)
    try:
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise refusal(address, error) from None
    made.setblocking(False)
    return made


def held(address: Address) -> socket.socket:
    """A socket that keeps an address as long as it is open, and accepts nothing: only those can listen there that ask
    to share it (`bind`, gRPC's `so_reuseport`), and nobody else can hold it. Raises CannotBind; Linux only.

    It is bound as one that shares with nobody, and listens for an instant, which the kernel grants to one alone; what
    it is from then on is set afterwards, when it keeps its address without having to ask for it again.
    """
    made = bound(address)
    try:
        if address.port:
            made.listen(1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # or one that doesn't share could bind beside it
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.port:
            made.shutdown(socket.SHUT_RDWR)  # tcp_disconnect: it listens no more, and is still bound
    except OSError as error:
        made.close()
        raise refusal(address, error) from None
    return made


def bound(address: Address, *, shared: bool = False) -> socket.socket:
    """A socket with its address. Raises CannotBind."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)  # asyncio sets TCP_NODELAY only where the protocol is named
    except OSError as error:
        raise refusal(address, error) from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart must not wait for TIME_WAIT
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(target)
    except OSError as error:
        made.close()
        raise refusal(address, error) from None
    return made


def refusal(address: Address, error: OSError) -> CannotBind:
    return CannotBind(f"Can't listen on {address}: {error.strerror}.")
