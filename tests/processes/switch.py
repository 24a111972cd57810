"""A TCP balancer as simple as can be: every new connection goes to the address that is named by then."""

from __future__ import annotations

import asyncio

from tests.relay import Ends, Relay


class Switch(Relay):
    """`with Switch(target) as switch`: connect to `switch.address`; `switch.target` may be changed at any time."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    async def connect(self) -> Ends:
        host, _, port = self.target.rpartition(":")
        return await asyncio.open_connection(host, int(port))
