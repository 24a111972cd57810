"""A plain TCP balancer, as kube-proxy is one: it hands on connections and knows nothing of gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from pathlib import Path

from tests.relay import Ends, Relay

LOWEST_PORT = 10_000
PORTS = 10_000
"""Chosen from, at the least: where the kernel gives nearly all ports to anybody, as some are told to, none is safe."""


class Balancer(Relay):
    """`with Balancer(ports) as balancer`: connect to `balancer.address`. Each new connection goes to the next port in
    turn; one that refuses it is passed over. There is no health check."""

    def __init__(self, ports: list[int]) -> None:
        super().__init__()
        self.accepted = 0
        self.passed_over = 0
        self._ports = ports
        self._turn = 0

    async def connect(self) -> Ends:
        self.accepted += 1
        for _ in self._ports:
            self._turn += 1
            try:
                return await asyncio.open_connection("127.0.0.1", self._ports[self._turn % len(self._ports)])
            except OSError:
                self.passed_over += 1
        raise ConnectionRefusedError


def free_ports(count: int) -> list[int]:
    """Ports that are free now, to be taken by processes that come back to the same one. They are below those that the
    kernel gives to whoever asks for any, of whom a test has many: none of them gets one while its process is away."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            port = random.randrange(LOWEST_PORT, max(first_of_any(), LOWEST_PORT + PORTS))
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
    return found


def first_of_any() -> int:
    """The first of the ports that the kernel gives for port 0, and to connections that go out."""
    told = Path("/proc/sys/net/ipv4/ip_local_port_range")
    return int(told.read_text().split()[0]) if told.exists() else 32_768
