"""Clients follow replicas that come and go: by what a discovery says, over real servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
import trustme
from artstore.identity import (
    Client,
    GrpcKeys,
    LoadBalancing,
    RetryPolicy,
    SyncTokenSource,
    TokenSource,
    TokenVerifier,
    TrustFeed,
    Unavailable,
)
from artstore.identity.discovery import target_of
from artstore.identity.testing import FakeAuthority
from artstore.identity.v1 import token_service_pb2 as pb
from canned import Canned, canned_server
from sources import ME, asked, opened, tokens

REFRESH = timedelta(milliseconds=20)
ONCE = RetryPolicy(max_attempts=1)


class Told:
    """A discovery that says what a test told it."""

    refresh = REFRESH

    def __init__(self, *addresses: str, server_name: str = "") -> None:
        self.addresses = addresses
        self.server_name = server_name
        self._looks = 0

    def current(self) -> tuple[str, ...]:
        self._looks += 1
        return self.addresses

    async def say(self, *addresses: str) -> None:
        """Says something else, and waits until who looks again and again has seen it."""
        self.addresses = addresses
        seen = self._looks
        await until(lambda: self._looks >= seen + 2)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  # what it waits for is another thread's, or another's own
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def servers() -> AsyncIterator[list[Canned]]:
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(canned_server()) for _ in range(3)]
        for each in made:
            tokens(each)
        yield made


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ((), ""),
        (("10.0.0.1:50051",), "ipv4:10.0.0.1:50051"),
        (("10.0.0.10:1", "10.0.0.9:1", "10.0.0.9:1"), "ipv4:10.0.0.9:1,10.0.0.10:1"),
        (("[2001:db8::1]:1",), "ipv6:[2001:db8::1]:1"),
        (("10.0.0.1:1", "[2001:db8::1]:2"), "ipv6:[::ffff:10.0.0.1]:1,[2001:db8::1]:2"),
        (("nowhere.invalid:1", "10.0.0.1:1", "10.0.0.1", "10.0.0.1:x", "", ":1:", "a" * 300 + ":1"), "ipv4:10.0.0.1:1"),
    ],
)
def test_targets(addresses: tuple[str, ...], target: str) -> None:
    """Addresses become one target, in an order of their own and each once; what is none, and names that nobody has,
    are left out."""
    assert target_of(addresses) == target


def test_names_are_looked_up() -> None:
    """A name becomes the addresses that it has."""
    assert "127.0.0.1" in target_of(["localhost:50051"])


def test_one_of_both() -> None:
    """A target beside a discovery, neither, or TLS without a name to verify: refused before anything is opened."""
    secured = grpc.ssl_channel_credentials()
    for kind in (Client, TokenSource, SyncTokenSource):
        for wrong in ({}, {"target": "a:1", "discovery": Told()}):
            with pytest.raises(ValueError, match="discovery"):
                kind(**wrong, **ME)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="server_name"):
            kind(discovery=Told("127.0.0.1:1"), channel_credentials=secured, **ME)  # type: ignore[arg-type]


async def test_calls_are_spread(servers: list[Canned]) -> None:
    """Every replica gets its turn."""
    async with Client(discovery=Told(*(each.target for each in servers)), **ME) as client:
        for _ in range(300):
            await client.issue_token()
            if min(map(asked, servers)) > 10:
                break
        assert max(map(asked, servers)) < 2 * min(map(asked, servers)) + 150


async def test_calls_follow(servers: list[Canned]) -> None:
    """After a change new calls go to the new set alone, and a call in flight on the old one comes to its end; then the
    old one has no connection left."""
    one, two, _ = servers
    finish, begun = asyncio.Event(), asyncio.Event()

    async def slowly(_: Any) -> pb.IssueTokenResponse:
        begun.set()
        await finish.wait()
        return pb.IssueTokenResponse(access_token="slow", expires_in=1800)

    one.answers["IssueToken"] = slowly
    told = Told(one.target)
    async with Client(discovery=told, **ME, retry=ONCE) as client:
        flying = asyncio.create_task(client.issue_token())
        await begun.wait()
        await told.say(two.target)
        for _ in range(20):
            assert (await client.issue_token()).access_token.startswith("token-")
        assert (asked(one), asked(two)) == (1, 20)
        finish.set()
        assert (await flying).access_token == "slow"
        await told.say(two.target)
        await until(lambda: not client.channel._retired)  # type: ignore[attr-defined]


async def test_no_call_fails_while_replicas_come_and_go(servers: list[Canned]) -> None:
    """A hundred changes of the set under calls that never pause: each is answered, without one retry."""
    told = Told(servers[0].target)
    answered = 0

    async def call(client: Client) -> None:
        nonlocal answered
        while not over.is_set():
            await client.issue_token()
            answered += 1

    over = asyncio.Event()
    async with Client(discovery=told, **ME, retry=ONCE) as client:
        calling = [asyncio.create_task(call(client)) for _ in range(8)]
        for number in range(100):
            await told.say(*(each.target for each in servers if (number + servers.index(each)) % 3))
        over.set()
        await asyncio.gather(*calling)
    assert answered > 100
    assert all(asked(each) for each in servers)


async def test_a_dead_one_is_left_at_once(servers: list[Canned]) -> None:
    """What the discovery still names and nobody answers at costs no call: it is left by the connection that fails."""
    told = Told("127.0.0.1:1", servers[0].target)
    async with Client(discovery=told, **ME, retry=ONCE) as client:
        for _ in range(20):
            await client.issue_token()
    assert asked(servers[0]) == 20


async def test_nobody_is_known(servers: list[Canned]) -> None:
    """Without a replica calls are UNAVAILABLE; one that comes within the retries' patience answers."""
    told = Told()
    async with Client(discovery=told, **ME, retry=ONCE) as client:
        with pytest.raises(Unavailable, match="No replica is known"):
            await client.issue_token()
    async with Client(discovery=told, **ME, retry=RetryPolicy(max_attempts=20)) as client:  # a busy machine's patience
        asking = asyncio.create_task(client.issue_token())
        await told.say(servers[0].target)
        assert (await asking).access_token == "token-1"
        await told.say()
        assert (await client.issue_token()).access_token == "token-2"


async def test_a_discovery_that_fails(servers: list[Canned], caplog: pytest.LogCaptureFixture) -> None:
    """A defect in somebody's discovery is logged, and what it said last goes on."""
    told = Told(servers[0].target)
    async with Client(discovery=told, **ME, retry=ONCE) as client:
        await client.issue_token()
        told.current = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        await until(lambda: "the discovery failed" in caplog.text)
        await client.issue_token()


async def test_token_sources_follow(servers: list[Canned], kind: str) -> None:
    """A source asks whoever is there when it needs a token, and waits for the first that comes."""
    told = Told()
    async with opened(kind, "", discovery=told) as source:
        asking = asyncio.create_task(source.token(scope="a"))
        await asyncio.sleep(0)
        told.addresses = (servers[0].target,)
        assert await asking
        for number in range(2):
            if kind == "asyncio":
                await told.say(servers[1].target)
            else:
                told.addresses = (servers[1].target,)
            assert await source.token(scope=f"b{number}")
    assert (asked(servers[0]), asked(servers[1])) == (1, 2)


async def test_a_sync_call_in_flight_ends_where_it_began(servers: list[Canned]) -> None:
    """Also in threads: a change closes no channel under a call."""
    finish, begun = asyncio.Event(), asyncio.Event()

    async def slowly(_: Any) -> pb.IssueTokenResponse:
        begun.set()
        await finish.wait()
        return pb.IssueTokenResponse(access_token="slow", expires_in=1800)

    servers[0].answers["IssueToken"] = slowly
    told = Told(servers[0].target)
    async with opened("threads", "", discovery=told) as source:
        flying = asyncio.create_task(source.token(scope="a"))
        await begun.wait()
        told.addresses = (servers[1].target,)
        assert await source.token(scope="b") == "token-1"
        finish.set()
        assert await flying == "slow"


async def test_a_source_closed_while_it_waits(kind: str) -> None:
    """Nobody waits for ever for a replica that doesn't come."""
    with pytest.raises(Unavailable):
        async with opened(kind, "", discovery=Told(), timeout=timedelta(milliseconds=300)) as source:
            await source.token()


async def test_verifiers_follow() -> None:
    """A trust feed, and the keys that a client's replicas publish, come from where a discovery says."""
    async with FakeAuthority() as authority:
        account = authority.account(served_audiences=["artstore"])
        who = {"client_id": account.client_id, "client_secret": account.client_secret}
        async with Client(discovery=Told(authority.target), **who) as client, TrustFeed(client) as feed:
            await feed.confirmed()
            verifier = TokenVerifier(authority.issuer, audience="artstore", trust=feed)
            token = (await client.issue_token()).access_token
            assert (await verifier.verify(token)).client_id == account.client_id
            fetched = await asyncio.to_thread(GrpcKeys.of(client).fetch, "", 5.0)
            assert fetched.document["keys"]


@pytest.mark.parametrize(("name", "accepted"), [("identity.internal", True), ("another.internal", False)])
async def test_tls(name: str, accepted: bool, kind: str) -> None:
    """The name that is given once is what every replica's certificate is verified against, wherever it is."""
    authority = trustme.CA()
    made = authority.issue_cert("identity.internal")
    serving = grpc.ssl_server_credentials(
        [(made.private_key_pem.bytes(), b"".join(pem.bytes() for pem in made.cert_chain_pems))]
    )
    trusting = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    with FakeAuthority(server_credentials=serving) as fake:
        account = fake.account()
        where: dict[str, Any] = {
            "discovery": Told(fake.target, server_name=name),
            "channel_credentials": trusting,
            "timeout": timedelta(seconds=5),
        }
        who = {"client_id": account.client_id, "client_secret": account.client_secret}
        async with Client(**where, **who) as client, opened(kind, "", **where, **who) as source:
            if accepted:
                assert (await client.issue_token()).access_token
                assert await source.token()
                return
            with pytest.raises(Unavailable):
                await client.issue_token()
            with pytest.raises(Unavailable):
                await source.token(timeout=timedelta(seconds=1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "random"},
        {"first_reconnect_wait": timedelta(0)},
        {"max_reconnect_wait": timedelta(milliseconds=1)},
        {"min_resolution_interval": timedelta(0)},
    ],
)
def test_settings_out_of_bounds(wrong: dict[str, Any]) -> None:
    """Each setting has bounds."""
    with pytest.raises(ValueError, match="must be"):
        LoadBalancing(**wrong)


async def test_pick_first_is_one_of_them(servers: list[Canned]) -> None:
    """With `pick_first` a client keeps to one replica."""
    told = Told(*(each.target for each in servers))
    async with Client(discovery=told, **ME, load_balancing=LoadBalancing(policy="pick_first")) as client:
        for _ in range(30):
            await client.issue_token()
    assert sorted(map(asked, servers)) == [0, 0, 30]


async def test_who_gives_up_on_the_first_answer_leaves_nothing_behind() -> None:
    """A client whose `async with` is cancelled while the discovery is silent asks it no more."""
    silent = Silent()
    before = asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), Client(discovery=silent):
            raise AssertionError("entered")
    silent.answer.set()
    await asyncio.sleep(10 * REFRESH.total_seconds())
    assert asyncio.all_tasks() == before
    assert silent.looks == 1


class Silent(Told):
    """A discovery that says nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()
        self.looks = 0

    def current(self) -> tuple[str, ...]:
        self.looks += 1
        assert self.answer.wait(60)
        return ()
