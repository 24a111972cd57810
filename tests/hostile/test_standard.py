"""Health, reflection and methods that don't exist are attacked like everything else."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from hypothesis import given

from tests.hostile import frames
from tests.hostile.messages import garbage
from tests.hostile.test_fuzz import QUICK
from tests.hostile.victim import Outcome, Victim, assert_refused_clearly, outcome
from tests.installation import Installation

CHECK = "grpc.health.v1.Health/Check"
LIST = "grpc.health.v1.Health/List"
STREAMS = ("grpc.health.v1.Health/Watch", "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
UNDECODABLE = Outcome("INVALID_ARGUMENT", "UNDECODABLE_MESSAGE")


def streamed(victim: Victim, method: str, data: bytes) -> Outcome:
    """The first answer of a stream, or how it failed."""
    call = victim.installation.channel.stream_stream(f"/{method}")(iter([data]), timeout=5)
    try:
        return Outcome("OK", data=next(call, b""))
    except grpc.RpcError as error:
        return outcome(error)
    finally:
        call.cancel()


@pytest.mark.parametrize("method", [CHECK, LIST])
def test_undecodable_probe(victim: Victim, method: str) -> None:
    """A probe that isn't protobuf is INVALID_ARGUMENT with our reason, not UNKNOWN with a parser's text."""
    refused = victim.call(method, b"\xff\xff")
    assert (refused.code, refused.reason) == (UNDECODABLE.code, UNDECODABLE.reason)


@pytest.mark.parametrize("method", STREAMS)
def test_undecodable_stream(victim: Victim, method: str) -> None:
    """So is a message on a stream."""
    refused = streamed(victim, method, b"\xff\xff")
    assert (refused.code, refused.reason) == (UNDECODABLE.code, UNDECODABLE.reason)


@pytest.mark.parametrize("method", STREAMS)
def test_fuzzed_stream(victim: Victim, method: str) -> None:
    """Garbage on a stream is refused by us, or answered."""

    @QUICK
    @given(garbage())
    def one(data: bytes) -> None:
        assert_refused_clearly(streamed(victim, method, data))

    one()


def test_unknown_probe(victim: Victim) -> None:
    """A service nobody has heard of is NOT_FOUND, as the health protocol has it."""
    request = health_pb2.HealthCheckRequest(service="a\0" * 1000)
    assert victim.call(CHECK, request.SerializeToString()).code == "NOT_FOUND"


def test_states_are_listed(victim: Victim) -> None:
    """`List` names every state that may be asked for."""
    listed = health_pb2.HealthListResponse.FromString(victim.call(LIST, b"").data)
    assert {"", "liveness", "readiness"} < set(listed.statuses)


@pytest.mark.parametrize("method", ["x/y", "artstore.identity.v1.TokenService/Nope", "a" * 5000, "%00/%ff"])
def test_unknown_method(victim: Victim, method: str) -> None:
    """A method that doesn't exist is UNIMPLEMENTED."""
    assert victim.call(method, b"\xff").code == "UNIMPLEMENTED"


def stalled_watch(service: Installation, name: str) -> socket.socket:
    """A watch whose client never lets a byte of the answer through."""
    made = frames.connected(service.started.grpc_address.port, window=0)
    asked = health_pb2.HealthCheckRequest(service=name).SerializeToString()
    made.sendall(
        frames.frame(frames.HEADERS, frames.END_HEADERS, 1, frames.request("/grpc.health.v1.Health/Watch"))
        + frames.frame(frames.DATA, frames.END_STREAM, 1, frames.message(asked))
    )
    return made


def test_stalled_watch(tmp_path: Path) -> None:
    """A watcher that never reads keeps the service neither from turning unready nor from stopping in its grace."""
    with ExitStack() as stack:
        service = stack.enter_context(Installation(tmp_path, drain_grace=timedelta(seconds=1)))
        made = stalled_watch(service, "readiness")
        made.recv(1000)
        time.sleep(0.2)  # the first state is on its way, and stuck
        began = time.monotonic()
        stack.close()
        assert time.monotonic() - began < service.settings.drain_grace.total_seconds() + 15
        made.close()
