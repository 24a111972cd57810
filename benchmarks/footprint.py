"""`make footprint`: what a service on the embedded default takes when nobody asks anything, and how soon it answers.

Each is a real process, started by the command that `make run` has, in a folder of its own: with an installation to
make, with one that is there, and with two workers. The clock runs from the start of the process to the first token;
memory is read when it has been idle for a while. What processes share (libraries) is counted in the resident size of
each; in the proportional size (PSS, Linux) each has its part of it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from artstore.identity.v1 import token_service_pb2 as pb
from artstore.identity.v1.token_service_pb2_grpc import TokenServiceStub

from benchmarks.processes import family
from tests.processes.service import Service, until

RUNS = 5
IDLE_SECONDS = 5.0
ANSWER_SECONDS = 60.0
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one start. Bytes of all its processes together."""

    first_token_seconds: float
    resident_bytes: int
    proportional_bytes: int
    processes: int


def footprint(folder: Path, environment: Mapping[str, str]) -> Footprint:
    """Starts it, gets a token, waits, and ends it."""
    service = Service(
        folder, dict(environment) | {"ARTSTORE_DATA_DIR": str(folder / "var"), "ARTSTORE_BCRYPT_COST": "12"}
    )
    started = time.perf_counter()
    service.spawn()
    try:
        first_token(service, folder)
        seconds = time.perf_counter() - started
        service.logged("ready")
        time.sleep(IDLE_SECONDS)
        processes = [psutil.Process(pid) for pid in family(service.pid)]
        taken = [each.memory_full_info() for each in processes]
        return Footprint(seconds, sum(each.rss for each in taken), sum(each.pss for each in taken), len(taken))
    finally:
        service.terminate()
        service.wait(ANSWER_SECONDS)


def first_token(service: Service, folder: Path) -> None:
    """Gets a token as soon as there are an address and credentials."""
    path = folder / "var" / "administrator.env"
    address = service.grpc_address
    until(path.exists, ANSWER_SECONDS, "credentials")
    given = dict(line.split("=", 1) for line in path.read_text().splitlines())
    request = pb.IssueTokenRequest(
        grant_type="client_credentials",
        client_id=given["ARTSTORE_CLIENT_ID"],
        client_secret=given["ARTSTORE_CLIENT_SECRET"],
    )
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = TokenServiceStub(channel)
        until(lambda: issued(stub, request), ANSWER_SECONDS, "a token")


def issued(stub: TokenServiceStub, request: pb.IssueTokenRequest) -> bool:
    try:
        return bool(stub.IssueToken(request, timeout=ANSWER_SECONDS, wait_for_ready=True).access_token)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


def told(name: str, found: Sequence[Footprint]) -> str:
    seconds = sorted(each.first_token_seconds for each in found)
    resident, shared = (
        statistics.median(values) / MIB
        for values in zip(*((each.resident_bytes, each.proportional_bytes) for each in found), strict=True)
    )
    return (
        f"{name}: first token after {statistics.median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f}); idle "
        f"{resident:.0f} MiB resident, {shared:.0f} MiB proportional, {found[0].processes} process(es)"
    )


def main() -> None:
    """Prints a line for each kind of start, the medians of some."""
    with tempfile.TemporaryDirectory(prefix="artstore-footprint-") as root:
        folders = [Path(root) / str(number) for number in range(RUNS)]
        for name, environment in (
            ("the very first start", {}),
            ("a later start", {}),
            ("a later start with 2 workers", {"ARTSTORE_WORKERS": "2"}),
        ):
            print(told(name, [footprint(folder, environment) for folder in folders]), flush=True)


if __name__ == "__main__":
    main()
