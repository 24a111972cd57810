"""The operations that are measured, as a client does them: one call over one connection, its answer looked at.

The clients are thin on purpose (bytes made beforehand, no stubs, no HTTP library above the parser): what they would
cost is not what is measured, and a load generator that can't keep up would measure itself.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import httptools
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from benchmarks.load import Operation
from benchmarks.seed import Seeded

TOKENS = "/artstore.identity.v1.TokenService"
ACCOUNTS = "/artstore.identity.v1.ServiceAccountService"
CALL_SECONDS = 60.0
ISSUED_BYTES = 500
"""Less is no answer with a token in it."""

Metadata = tuple[tuple[str, str], ...]


class WrongAnswer(Exception):
    """The call succeeded, and what came back is not what was asked for."""


def channels(address: str, count: int) -> list[grpc.aio.Channel]:
    """Channels that share no connection."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    return [grpc.aio.insecure_channel(address, options) for _ in range(count)]


def unary(
    channel: grpc.aio.Channel,
    method: str,
    requests: Iterator[bytes],
    *,
    metadata: Metadata = (),
    right: Callable[[bytes], bool] = lambda answer: True,
) -> Operation:
    """The next request to a method each time."""
    stub: Any = channel.unary_unary(method)

    async def call() -> None:
        answer: Any = await stub(next(requests), metadata=metadata, timeout=CALL_SECONDS)
        if not right(answer):
            raise WrongAnswer(method)

    return call


def issuing(accounts: Sequence[Seeded], offset: int = 0) -> Iterator[bytes]:
    """IssueToken by one account after the other, for ever."""
    made = [
        tokens_pb.IssueTokenRequest(
            grant_type="client_credentials", client_id=each.client_id, client_secret=each.secret
        ).SerializeToString()
        for each in accounts
    ]
    return itertools.cycle(made[offset % len(made) :] + made[: offset % len(made)])


def issue(channel: grpc.aio.Channel, requests: Iterator[bytes], method: str = f"{TOKENS}/IssueToken") -> Operation:
    return unary(channel, method, requests, right=lambda answer: len(answer) > ISSUED_BYTES)


def introspecting(tokens: Sequence[tuple[Seeded, str]]) -> Iterator[bytes]:
    """IntrospectToken of each account's own token, for ever."""
    return itertools.cycle(
        [
            tokens_pb.IntrospectTokenRequest(
                token=token, client_id=each.client_id, client_secret=each.secret
            ).SerializeToString()
            for each, token in tokens
        ]
    )


def is_active(answer: bytes) -> bool:
    return tokens_pb.IntrospectTokenResponse.FromString(answer).active


def creating(prefix: str) -> Iterator[bytes]:
    """CreateServiceAccount, each of another name."""
    for number in itertools.count():
        account = accounts_pb.ServiceAccount(name=f"{prefix}-{number}", role=accounts_pb.ROLE_USER)
        yield accounts_pb.CreateServiceAccountRequest(service_account=account).SerializeToString()


def rotating(accounts: Sequence[Seeded]) -> Iterator[bytes]:
    """RotateSecret without an overlap, of one account after the other, for ever."""
    for each in itertools.cycle(accounts):
        request = accounts_pb.RotateSecretRequest(id=each.id)
        request.overlap.SetInParent()
        yield request.SerializeToString()


def listing(page_size: int, page_token: str) -> Iterator[bytes]:
    request = accounts_pb.ListServiceAccountsRequest(page_size=page_size, page_token=page_token)
    return itertools.repeat(request.SerializeToString())


def full_page(page_size: int) -> Callable[[bytes], bool]:
    def right(answer: bytes) -> bool:
        return len(accounts_pb.ListServiceAccountsResponse.FromString(answer).service_accounts) == page_size

    return right


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


class HttpConnection(asyncio.Protocol):
    """One HTTP/1.1 connection kept alive, one request at a time."""

    def __init__(self) -> None:
        self._parser: Any = None
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[int] | None = None
        self._length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError("the server closed the connection"))

    def on_message_begin(self) -> None:
        self._length = 0

    def on_body(self, body: bytes) -> None:
        self._length += len(body)

    def on_message_complete(self) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(self._parser.get_status_code())

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def post(self, request: bytes) -> None:
        """Sends a request; raises WrongAnswer for anything but a 200 with a body as long as a token's."""
        assert self._transport is not None
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        status = await asyncio.wait_for(self._answered, CALL_SECONDS)
        if status != 200 or self._length < ISSUED_BYTES:
            raise WrongAnswer(f"status {status}, {self._length} bytes")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def forms(host: str, path: str, accounts: Sequence[Seeded], offset: int = 0) -> Iterator[bytes]:
    """The RFC 6749 form by one account after the other, with Basic credentials, for ever."""
    body = b"grant_type=client_credentials"
    made = []
    for each in accounts:
        basic = base64.b64encode(f"{each.client_id}:{each.secret}".encode()).decode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Basic {basic}\r\n"
            f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return itertools.cycle(made[offset % len(made) :] + made[: offset % len(made)])


class Posting:
    """An operation over a connection of its own, which is opened anew where the server has closed it: idle ones are."""

    def __init__(self, port: int, requests: Iterator[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._connection = HttpConnection()

    async def __call__(self) -> None:
        if self._connection.closed:
            loop = asyncio.get_running_loop()
            _, self._connection = await loop.create_connection(HttpConnection, "127.0.0.1", self._port)
        await self._connection.post(next(self._requests))

    def close(self) -> None:
        self._connection.close()
