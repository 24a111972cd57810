"""An address that is held is nobody else's, and those that share it have it together."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from artstore_grpc.errors import CannotBind
from artstore_grpc.listeners import bind, held
from artstore_grpc.settings import Address

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux")

ANY = Address(host="127.0.0.1", port=0)


def refused(attempt: Callable[[], socket.socket]) -> bool:
    try:
        attempt().close()
    except CannotBind:
        return True
    return False


def at(holder: socket.socket) -> Address:
    return Address(host="127.0.0.1", port=holder.getsockname()[1])


@pytest.mark.parametrize("again", [False, True], ids=["any port", "a given port"])
def test_a_held_address(again: bool) -> None:
    """While it is held, with and without those that listen there, neither another holder nor a listener that shares
    with nobody gets it; connections reach those that share it, and nobody when they have gone."""
    with ExitStack() as stack:
        holder = stack.enter_context(held(ANY))
        address = at(holder)
        if again:
            holder.close()
            holder = stack.enter_context(held(address))
        assert refused(lambda: held(address))
        assert refused(lambda: bind(address))
        pair = [stack.enter_context(bind(address, shared=True)) for _ in range(2)]
        assert refused(lambda: held(address))
        assert refused(lambda: bind(address))
        callers = [stack.enter_context(socket.create_connection((address.host, address.port))) for _ in range(40)]
        taken = [accepted(each, stack) for each in pair]
        assert sum(taken) == len(callers)
        assert all(taken)
        for each in pair:
            each.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.host, address.port))
        assert refused(lambda: bind(address))
    assert not refused(lambda: bind(address))


def accepted(listener: socket.socket, stack: ExitStack) -> int:
    """How many connections wait at a listener."""
    count = 0
    while True:
        try:
            stack.enter_context(listener.accept()[0])
        except BlockingIOError:
            return count
        count += 1
