"""Makes the operations of a row: opens its connections, gets what its calls need."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import grpc
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from artstore.identity.v1.token_service_pb2_grpc import TokenServiceStub

from artstore_grpc.keys import MAX_VERIFIED
from benchmarks import calls
from benchmarks.calls import ACCOUNTS, TOKENS
from benchmarks.load import Operation
from benchmarks.rig import PAGE_SIZE, PAGES, Target
from benchmarks.seed import Seeded
from tests.processes.service import ISSUER

BIG_PAGE = 999
Maker = Callable[[Target, int, AsyncExitStack], Awaitable[list[Operation]]]
"""Makes so many operations on a target; the stack closes their connections."""


async def opened(target: Target, count: int, stack: AsyncExitStack) -> list[grpc.aio.Channel]:
    made = calls.channels(target.grpc, count)
    for channel in made:
        stack.push_async_callback(channel.close)
    return made


async def issue(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
    channels = await opened(target, count, stack)
    return [
        calls.issue(each, calls.issuing(target.accounts, place(number, count, target)))
        for number, each in enumerate(channels)
    ]


def place(number: int, count: int, target: Target) -> int:
    """Where one of so many operations begins among the accounts: together they soon have called each."""
    return number * len(target.accounts) // count


async def cold(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
    """Each account once: all operations draw from one supply."""
    supply = calls.issuing(target.accounts)
    return [calls.issue(each, supply) for each in await opened(target, count, stack)]


def floor(method: str) -> Maker:
    """A bare server's method, with the same requests."""

    async def make(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
        nobody = [Seeded("", "sa_dev_somebody_00000000", "artstore_" + "x" * 60)]
        requests = calls.issuing(nobody)
        return [calls.issue(each, requests, f"/floor/{method}") for each in await opened(target, count, stack)]

    return make


async def bare(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
    requests = calls.introspecting([(Seeded("", "sa_dev_somebody_00000000", "artstore_" + "x" * 60), "x" * 1000)])
    return [
        calls.unary(each, "/floor/bare", requests, right=calls.is_active) for each in await opened(target, count, stack)
    ]


async def introspect(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
    channels = await opened(target, count, stack)
    tokens = [(each, await token(channels[0], each)) for each in target.accounts[:50]]
    requests = calls.introspecting(tokens)
    return [calls.unary(each, f"{TOKENS}/IntrospectToken", requests, right=calls.is_active) for each in channels]


async def introspect_new(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
    """So many tokens that each is forgotten before it is asked about again."""
    channels = await opened(target, count, stack)
    tokens: list[tuple[Seeded, str]] = []
    while len(tokens) <= MAX_VERIFIED:
        batch = [target.accounts[(len(tokens) + number) % len(target.accounts)] for number in range(count)]
        made = await asyncio.gather(*(token(channel, each) for channel, each in zip(channels, batch, strict=True)))
        tokens += zip(batch, made, strict=True)
    requests = calls.introspecting(tokens)
    return [calls.unary(each, f"{TOKENS}/IntrospectToken", requests, right=calls.is_active) for each in channels]


async def create(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
    channels = await opened(target, count, stack)
    requests = calls.creating(f"made-{uuid4().hex[:8]}")
    metadata = await administrating(target, channels[0])
    return [calls.unary(each, f"{ACCOUNTS}/CreateServiceAccount", requests, metadata=metadata) for each in channels]


async def rotate(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
    channels = await opened(target, count, stack)
    requests = calls.rotating(target.accounts)
    metadata = await administrating(target, channels[0])
    return [calls.unary(each, f"{ACCOUNTS}/RotateSecret", requests, metadata=metadata) for each in channels]


def listing(page: int) -> Maker:
    async def make(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
        channels = await opened(target, count, stack)
        metadata = await administrating(target, channels[0])
        token = await page_token(channels[0], metadata, (page - 1) * PAGE_SIZE)
        requests, right = calls.listing(PAGE_SIZE, token), calls.full_page(PAGE_SIZE)
        method = f"{ACCOUNTS}/ListServiceAccounts"
        return [calls.unary(each, method, requests, metadata=metadata, right=right) for each in channels]

    return make


async def page_token(channel: grpc.aio.Channel, metadata: calls.Metadata, skipped: int) -> str:
    """What continues a listing after so many accounts."""
    stub: Any = channel.unary_unary(f"{ACCOUNTS}/ListServiceAccounts")
    token = ""
    while skipped > 0:
        size = min(BIG_PAGE, skipped)
        request = accounts_pb.ListServiceAccountsRequest(page_size=size, page_token=token)
        page = accounts_pb.ListServiceAccountsResponse.FromString(
            await stub(request.SerializeToString(), metadata=metadata)
        )
        skipped -= len(page.service_accounts)
        token = page.next_page_token
    return token


async def form(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
    return posting(target, "/oauth2/token", target.accounts, count, stack)


async def floor_form(target: Target, count: int, stack: AsyncExitStack) -> list[Operation]:
    nobody = [Seeded("", "sa_dev_somebody_00000000", "artstore_" + "x" * 60)]
    return posting(target, "/RS256", nobody, count, stack)


def posting(
    target: Target, path: str, accounts: Sequence[Seeded], count: int, stack: AsyncExitStack
) -> list[Operation]:
    host = f"127.0.0.1:{target.http}"
    starts = [number * len(accounts) // count for number in range(count)]
    made = [calls.Posting(target.http, calls.forms(host, path, accounts, start)) for start in starts]
    for each in made:
        stack.callback(each.close)
    return list(made)


async def token(channel: grpc.aio.Channel, account: Seeded, *audience: str) -> str:
    request = tokens_pb.IssueTokenRequest(
        grant_type="client_credentials",
        client_id=account.client_id,
        client_secret=account.secret,
        audience=audience,
    )
    issued: tokens_pb.IssueTokenResponse = await TokenServiceStub(channel).IssueToken(request)
    return issued.access_token


async def administrating(target: Target, channel: grpc.aio.Channel) -> calls.Metadata:
    assert target.administrator is not None
    return calls.bearer(await token(channel, target.administrator, ISSUER))


MAKERS: dict[str, Maker] = {
    "bare": bare,
    "floor RS256": floor("RS256"),
    "floor ES256": floor("ES256"),
    "floor EdDSA": floor("EdDSA"),
    "floor http": floor_form,
    "issue": issue,
    "form": form,
    "introspect": introspect,
    "introspect new": introspect_new,
    "create": create,
    "rotate": rotate,
    "list 1": listing(1),
    "list 1000": listing(PAGES),
    "cold": cold,
}


async def settle() -> None:
    """Lets what a run has left behind end before the next one is measured."""
    await asyncio.sleep(0.02)
