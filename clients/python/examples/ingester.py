"""A service that calls another one: it puts notes into the archive, so many a second, each call with a token.

Its secret is in a file that it rotates by itself before it expires; SIGUSR1 has it do so now.

    python ingester.py --identity 127.0.0.1:50051 --archive 127.0.0.1:50061 --credentials ingester.json --rate 200
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta

import grpc
from artstore.identity import CredentialsFile, SelfRotationPolicy, TokenSource, aio_token_interceptors
from google.protobuf.wrappers_pb2 import StringValue


class Ingester:
    """Calls the archive at a steady rate, whatever each call takes, and counts how each of them ended."""

    def __init__(self, channel: grpc.aio.Channel, source: TokenSource) -> None:
        self.ended: Counter[str] = Counter()
        self.rotations = 0
        self._source = source
        # What generated code would have: an example has no proto of its own.
        self._put = channel.unary_unary("/example.Archive/Put", StringValue.SerializeToString, StringValue.FromString)
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, rate: float, stop: asyncio.Event) -> None:
        """Begins a call every 1/rate seconds until told to stop, then waits for those under way."""
        loop = asyncio.get_running_loop()
        started, begun = loop.time(), 0
        while not stop.is_set():
            self._begin(self._call(begun))
            begun += 1
            await asyncio.sleep(max(started + begun / rate - loop.time(), 0))
        await asyncio.gather(*self._under_way)

    def rotate(self) -> None:
        self._begin(self._rotate())

    async def _rotate(self) -> None:
        if await self._source.rotate_secret():
            self.rotations += 1
            print(json.dumps({"rotations": self.rotations}), flush=True)

    async def _call(self, number: int) -> None:
        try:
            await self._put(StringValue(value=f"note {number}"), timeout=10)
            self.ended["OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.ended[f"{error.code().name}: {error.details()}"] += 1

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)


async def ingest(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    policy = SelfRotationPolicy(overlap=timedelta(seconds=options.overlap))
    async with (
        TokenSource(options.identity, credentials=CredentialsFile(options.credentials), rotation=policy) as source,
        grpc.aio.insecure_channel(options.archive, interceptors=aio_token_interceptors(source)) as channel,
    ):
        ingester = Ingester(channel, source)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ingester.rotate)
        await source.token()
        print(json.dumps({"ready": True}), flush=True)
        await ingester.run(options.rate, stop)
        print(json.dumps({"ended": ingester.ended, "rotations": ingester.rotations}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--identity", required=True, help="the identity service's gRPC address")
    parser.add_argument("--archive", required=True, help="the archive's gRPC address")
    parser.add_argument("--credentials", required=True, help="this service's credentials file")
    parser.add_argument("--rate", type=float, default=1, help="calls a second (default: %(default)s)")
    parser.add_argument("--overlap", type=float, default=86_400, help="seconds that an old secret lives on")
    asyncio.run(ingest(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
