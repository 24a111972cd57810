"""What traces cost: the server's CPU for an IssueToken with traces off, at 1 % and at 100 %, taking turns.

`python -m benchmarks.tracing`; a minute. The receiver of the spans is a process of its own. CPU is the server's, in all
its threads, the one that sends spans included; each ratio is the median of the pairs'.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from artstore_grpc.call import Call
from artstore_grpc.spans import span
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.telemetry.traces import Traces
from benchmarks import load
from benchmarks.load import Operation
from benchmarks.measure import WARM_SECONDS
from benchmarks.operations import MAKERS, settle
from benchmarks.plan import CONNECTIONS
from benchmarks.processes import LOAD_CORE, Spoken, pin
from benchmarks.rig import Target, Variant, rig

NOWHERE = "http://127.0.0.1:1"
ALONE_RUNS, ALONE_CALLS = 15, 500
PAIRS = 30
RUN_SECONDS = 0.25
SHARES = {"off": "", "1 %": "0.01", "100 %": "1"}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans, and forgets them."""

    async def Export(  # noqa: N802 - as the proto names it
        self, request: pb.ExportTraceServiceRequest, context: Any
    ) -> pb.ExportTraceServiceResponse:
        return pb.ExportTraceServiceResponse()


async def collect() -> None:
    """The receiver's process; prints its port."""
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def measured() -> dict[str, list[float]]:
    """µs of the server's CPU for one token, run by run, by how much is traced."""
    pin(os.getpid(), LOAD_CORE)
    with ExitStack() as processes, tempfile.TemporaryDirectory() as folder:
        receiver = processes.enter_context(Spoken([sys.executable, "-m", "benchmarks.tracing", "receiver"]))
        pin(receiver.pid, LOAD_CORE)
        endpoint = f"http://127.0.0.1:{receiver.line}"
        variants = {
            name: Variant(environment={"ARTSTORE_TRACES_ENDPOINT": endpoint, "ARTSTORE_TRACES_SAMPLE": share})
            if share
            else Variant()
            for name, share in SHARES.items()
        }
        async with AsyncExitStack() as stack:
            made = await stack.enter_async_context(rig(Path(folder), set(variants), variants))
            subjects = {
                name: (target, await MAKERS["issue"](target, CONNECTIONS, stack))
                for name, target in made.targets.items()
            }
            costs: dict[str, list[float]] = {name: [] for name in variants}
            for operations in (operations for _, operations in subjects.values()):
                await load.closed(operations, 2.0)
            for _ in range(PAIRS):
                for name, (target, operations) in subjects.items():
                    costs[name].append(await run(target, operations))
            return costs


async def run(target: Target, operations: Sequence[Operation]) -> float:
    """One run: µs of a token."""
    await load.closed(operations, WARM_SECONDS)
    await settle()
    before = target.measured.cpu_seconds()
    outcome = await load.closed(operations, RUN_SECONDS)
    if outcome.errors:
        raise RuntimeError(f"the run failed: {outcome.errors}")
    return (target.measured.cpu_seconds() - before) / len(outcome.latencies) * 1e6


def alone(share: float) -> float:
    """µs of the event loop's thread for what traces add to one token's call, its signature's span included: the least
    of many runs, which is what it takes where nothing else disturbs it."""

    async def run() -> float:
        traces = Traces(NOWHERE, ratio=share, service="bench", environment="dev", logger=configured("error"))
        found = [spent(traces) for _ in range(ALONE_RUNS)]
        traces.draining(timedelta(0))
        await traces.close()
        return min(found)

    return asyncio.run(run())


def spent(traces: Traces) -> float:
    began = time.thread_time()
    for _ in range(ALONE_CALLS):
        with traces.call(Call("artstore.identity.v1.TokenService/IssueToken", "127.0.0.1")), span("sign"):
            pass
    return (time.thread_time() - began) / ALONE_CALLS * 1e6


def main() -> None:
    if sys.argv[1:] == ["receiver"]:
        asyncio.run(collect())
        return
    print(f"on the loop: {alone(0.0):.1f} µs for a call that isn't recorded, {alone(1.0):.1f} µs for one that is")
    costs = asyncio.run(measured())
    for name, runs in costs.items():
        ratios = [cost / base for cost, base in zip(runs, costs["off"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        cost = statistics.median(runs)
        print(f"{name:>6}: {cost:6.0f} µs a token, × {middle:.3f} of off (quartiles {low:.3f} {high:.3f})")


if __name__ == "__main__":
    main()
