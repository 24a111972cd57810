"""A token source against the real service: how often it asks, and what its callers notice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from artstore.identity import CredentialsError, CredentialsFile, InvalidClient, SyncTokenSource, TokenSource

from artstore_grpc.settings import Address
from tests.client_library.conftest import Stoppable, credentials_file
from tests.installation import Account, Installation

CALLERS = 10_000
THREADS = 200


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def issued(service: Installation, account: Account) -> int:
    """How often the service was asked for a token by an account, by its own log."""
    lines = service.log.getvalue().splitlines()
    return sum("IssueToken" in line and account.client_id in line for line in lines)


def target(service: Installation) -> str:
    return str(service.started.grpc_address)


async def test_ten_thousand_callers_are_one_request(service: Installation, user: Account) -> None:
    """At once, on one loop: one IssueToken, and the same token for all."""
    async with TokenSource(target(service), client_id=user.client_id, client_secret=user.secret) as source:
        tokens = await asyncio.gather(*(source.token() for _ in range(CALLERS)))
    assert len(set(tokens)) == 1
    assert len(tokens) == CALLERS
    assert issued(service, user) == 1


def test_two_hundred_threads_are_one_request(service: Installation, user: Account) -> None:
    """At once, from as many threads, fifty times each."""
    start = threading.Barrier(THREADS)
    with (
        SyncTokenSource(target(service), client_id=user.client_id, client_secret=user.secret) as source,
        ThreadPoolExecutor(THREADS) as pool,
    ):

        def call(_: int) -> set[str]:
            start.wait()
            return {source.token() for _ in range(50)}

        tokens = set().union(*pool.map(call, range(THREADS)))
    assert len(tokens) == 1
    assert issued(service, user) == 1


def test_ten_thousand_refusals_are_one_request(service: Installation, user: Account) -> None:
    """A wrong secret is one wrong secret to the service, whoever calls."""
    wrong = user.secret[:-1] + ("0" if user.secret[-1] != "0" else "1")

    async def call() -> list[Any]:
        async with TokenSource(target(service), client_id=user.client_id, client_secret=wrong) as source:
            return await asyncio.gather(*(source.token() for _ in range(CALLERS)), return_exceptions=True)

    assert {type(each) for each in asyncio.run(call())} == {InvalidClient}
    assert sum("IssueToken" in line for line in service.log.getvalue().splitlines()) - setup_tokens(service) == 1


def setup_tokens(service: Installation) -> int:
    """The administrator's own, for the account."""
    lines = service.log.getvalue().splitlines()
    return sum("IssueToken" in line and service.administrator.client_id in line for line in lines)


async def test_two_minutes_without_the_service(installations: Callable[..., Stoppable]) -> None:
    """The service is stopped for two minutes of the source's clock: callers with a live token notice nothing, at no
    second; when it is back the token is replaced, and no caller waited."""
    service = installations(issuer="http://issuer.test")
    account = service.account("user")
    address = service.started.grpc_address
    clock = Clock()
    source = TokenSource(target(service), client_id=account.client_id, client_secret=account.secret, clock=clock)
    async with source:
        token = await source.token()
        await asyncio.to_thread(service.stop)
        clock.seconds += 1800 * 0.81
        for _ in range(120):
            assert await source.token(timeout=timedelta(microseconds=1)) == token
            while source._flights:
                await asyncio.wait(source._flights)
            clock.seconds += 1
        entry = next(iter(source._cache._entries.values()))
        assert entry.failures > 10, "the service was not asked while it was away"
        again = Address(host="127.0.0.1", port=address.port)
        service = await asyncio.to_thread(installations, issuer="http://issuer.test", grpc_address=again)
        await asyncio.wait_for(source._channel.channel_ready(), 20)  # gRPC's own back-off is real time
        clock.seconds += 10
        assert await source.token(timeout=timedelta(microseconds=1)) == token
        await asyncio.wait(source._flights)
        assert await source.token(timeout=timedelta(microseconds=1)) != token
    assert clock.seconds < 1000 + 1800


async def test_a_file_that_another_process_changes(service: Installation, user: Account, tmp_path: Path) -> None:
    """The old secret is dead at once, the file has the new one: the next token is got, and nobody sees an error."""
    path = credentials_file(tmp_path / "credentials.json", service, user)
    clock = Clock()
    async with TokenSource(target(service), credentials=CredentialsFile(path), clock=clock) as source:
        first = await source.token()
        await asyncio.to_thread(replaced, service, user, path)
        clock.seconds += 100
        assert source.invalidate(first)
        assert await source.token() != first


def replaced(service: Installation, user: Account, path: Path) -> None:
    """As an operator does it: rotated without overlap, and written by hand."""
    from artstore.identity.v1 import service_account_service_pb2 as pb
    from google.protobuf.duration_pb2 import Duration

    request = pb.RotateSecretRequest(id=user.id, overlap=Duration())
    answer = service.accounts.RotateSecret(request, metadata=service.bearer())
    other = Account(user.id, user.client_id, answer.client_secret, user.message)
    credentials_file(path.with_name("next"), service, other).replace(path)


async def test_a_file_of_another_issuer(service: Installation, user: Account, tmp_path: Path) -> None:
    """It is refused before its secret is sent anywhere, with what to do."""
    path = credentials_file(tmp_path / "credentials.json", service, user, issuer="https://staging.example")
    async with TokenSource(target(service), credentials=CredentialsFile(path, issuer=service.issuer)) as source:
        with pytest.raises(CredentialsError, match="give the file that belongs to it"):
            await source.token()
    assert issued(service, user) == 0


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_a_wall_clock_ten_minutes_off(service: Installation, user: Account, minutes: int) -> None:
    """The service's clock and the client's differ: a token is kept for its whole life, and not longer."""
    service.clock.advance(timedelta(minutes=minutes))
    clock = Clock()
    async with TokenSource(target(service), client_id=user.client_id, client_secret=user.secret, clock=clock) as source:
        first = await source.token()
        clock.seconds += 1800 * 0.66
        assert await source.token() == first
        assert issued(service, user) == 1
        clock.seconds += 1800 * 0.4
        assert await source.token() != first
