"""A service that verifies: it keeps notes, and who may put and get them is one table.

It checks each token by itself, and asks the identity service for nothing while it serves: keys and revocations come by
the one stream that it holds.

    python archive.py --identity 127.0.0.1:50051 --issuer http://127.0.0.1:8080 --credentials archive.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections import Counter

import grpc
from artstore.identity import (
    AioBearerInterceptor,
    Client,
    CredentialsFile,
    TokenVerifier,
    TrustFeed,
    current_caller,
    scope,
)
from google.protobuf.wrappers_pb2 import StringValue

WHO_MAY = {
    "/example.Archive/Put": scope("storage.write"),
    "/example.Archive/Get": scope("storage.read"),
}


class Archive:
    """The notes of each caller, in memory."""

    def __init__(self) -> None:
        self.served: Counter[str] = Counter()
        self._notes: dict[str, str] = {}

    async def put(self, request: StringValue, context: grpc.aio.ServicerContext) -> StringValue:
        caller = current_caller()
        self.served[caller.name] += 1
        self._notes[caller.subject] = request.value
        return StringValue(value=f"kept for {caller.name}")

    async def get(self, request: StringValue, context: grpc.aio.ServicerContext) -> StringValue:
        caller = current_caller()
        self.served[caller.name] += 1
        return StringValue(value=self._notes.get(caller.subject, ""))

    def handler(self) -> grpc.GenericRpcHandler:
        """What generated code would register: an example has no proto of its own."""

        def unary(method: object) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(method, StringValue.FromString, StringValue.SerializeToString)

        return grpc.method_handlers_generic_handler("example.Archive", {"Put": unary(self.put), "Get": unary(self.get)})


async def serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    me = CredentialsFile(options.credentials, issuer=options.issuer)
    async with (
        Client(options.identity, credentials=me) as client,
        TrustFeed(client) as feed,
    ):
        await feed.confirmed()
        verifier = TokenVerifier(options.issuer, audience="artstore", trust=feed)
        archive = Archive()
        server = grpc.aio.server(interceptors=[AioBearerInterceptor(verifier, WHO_MAY)])
        server.add_generic_rpc_handlers((archive.handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
        await stop.wait()
        await server.stop(5)
        print(json.dumps({"served": archive.served}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--identity", required=True, help="the identity service's gRPC address")
    parser.add_argument("--issuer", required=True, help="the issuer of the tokens that are accepted")
    parser.add_argument("--credentials", required=True, help="this service's credentials file")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
