"""The floor: what a token can't cost less than, as bare servers that do one signature and nothing else.

`python -m benchmarks.floors grpc|http` serves on any free port and prints it. The signature is `cryptography`'s own,
over as many bytes as an access token's header and claims; no checks, no log, no metrics.

gRPC methods: `/floor/RS256`, `/floor/ES256`, `/floor/EdDSA` parse an IssueTokenRequest, sign once and answer an
IssueTokenResponse; `/floor/bare` parses an IntrospectTokenRequest and answers an IntrospectTokenResponse. HTTP:
`POST /RS256` reads its body, signs once and answers JSON.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Callable
from typing import Any

import grpc
import uvicorn
import uvloop
from artstore.identity.v1 import token_service_pb2 as pb
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

SIGNED_BYTES = 640
"""The header and claims of an access token, in base64."""
PAYLOAD = b"x" * SIGNED_BYTES
LIFETIME_SECONDS = 1800

Sign = Callable[[], bytes]


def signers() -> dict[str, Sign]:
    """One signature by a new key, by its JWS algorithm."""
    rsa_key = rsa.generate_private_key(65537, 2048)
    ec_key = ec.generate_private_key(ec.SECP256R1())
    ed_key = ed25519.Ed25519PrivateKey.generate()
    pkcs1, sha256, ecdsa = padding.PKCS1v15(), SHA256(), ec.ECDSA(SHA256())
    return {
        "RS256": lambda: rsa_key.sign(PAYLOAD, pkcs1, sha256),
        "ES256": lambda: ec_key.sign(PAYLOAD, ecdsa),
        "EdDSA": lambda: ed_key.sign(PAYLOAD),
    }


def token(sign: Sign) -> str:
    """As long as a token."""
    return (PAYLOAD + b"." + base64.urlsafe_b64encode(sign())).decode()


def signing(sign: Sign) -> Any:
    async def handle(request: pb.IssueTokenRequest, context: Any) -> pb.IssueTokenResponse:
        return pb.IssueTokenResponse(access_token=token(sign), token_type="Bearer", expires_in=LIFETIME_SECONDS)

    return grpc.unary_unary_rpc_method_handler(
        handle, pb.IssueTokenRequest.FromString, pb.IssueTokenResponse.SerializeToString
    )


async def bare(request: pb.IntrospectTokenRequest, context: Any) -> pb.IntrospectTokenResponse:
    return pb.IntrospectTokenResponse(active=True)


async def serve_grpc() -> None:
    handlers = {name: signing(sign) for name, sign in signers().items()}
    handlers["bare"] = grpc.unary_unary_rpc_method_handler(
        bare, pb.IntrospectTokenRequest.FromString, pb.IntrospectTokenResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("floor", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def serve_http() -> None:
    sign = signers()["RS256"]

    async def handle(request: Request) -> JSONResponse:
        await request.body()
        return JSONResponse({"access_token": token(sign), "token_type": "Bearer", "expires_in": LIFETIME_SECONDS})

    app = Starlette(routes=[Route("/RS256", handle, methods=["POST"])])
    config = uvicorn.Config(app, port=0, http="httptools", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
        await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await task


def main() -> None:
    """Serves until it is killed; on uvloop, as the service does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run({"grpc": serve_grpc, "http": serve_http}[sys.argv[1]]())


if __name__ == "__main__":
    main()
