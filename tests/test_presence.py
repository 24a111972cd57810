"""Which address a process tells clients to call it at."""

from __future__ import annotations

from typing import Any

import pytest

from artstore_grpc.cli.environment import settings as read
from artstore_grpc.presence import advertised
from artstore_grpc.settings import Address, InvalidSettings, Settings


def host(host: str, port: int = 50051) -> Address:
    return Address(host=host, port=port)


@pytest.mark.parametrize(
    ("given", "bound", "told"),
    [
        (None, host("10.0.0.1"), host("10.0.0.1")),
        (None, host("127.0.0.1", 40000), host("127.0.0.1", 40000)),
        (None, host("0.0.0.0"), None),  # compared with, never bound
        (None, host("::"), None),
        (host("identity-1", 443), host("0.0.0.0"), host("identity-1", 443)),  # likewise
        (host("10.0.0.9", 0), host("::", 50051), host("10.0.0.9", 50051)),
    ],
)
def test_the_address(given: Any, bound: Address, told: Address | None) -> None:
    """The one that is given, with the bound port for port 0; else the bound one, unless that is every interface."""
    assert advertised(Settings(advertise_address=given), bound) == told


def test_a_wildcard_is_refused() -> None:
    """It is nowhere that a client could call."""
    assert read({"ARTSTORE_ADVERTISE_ADDRESS": "[2001:db8::1]:50051"}).advertise_address == host("2001:db8::1")
    with pytest.raises(InvalidSettings, match="ARTSTORE_ADVERTISE_ADDRESS"):
        read({"ARTSTORE_ADVERTISE_ADDRESS": "0.0.0.0:50051"})
