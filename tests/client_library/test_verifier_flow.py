"""The client's verifier against the real service: its keys by every way, its trust feed, its forgers, its outages."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from artstore.identity import (
    AdminClient,
    AioBearerInterceptor,
    BearerInterceptor,
    Client,
    IssuerKeys,
    SyncTrustFeed,
    TokenRefused,
    TokenRevoked,
    TokenVerifier,
    TrustFeed,
    TrustStale,
    UnknownKey,
    WrongAudience,
    current_caller,
    scope,
)
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from joserfc import jwk
from joserfc.jwk import RSAKey

from artstore_grpc.key_policy import active
from artstore_grpc.store.sql import SqlStore
from tests.api.test_forgery import FORGED, OURS
from tests.installation import Account, Installation
from tests.roots import opened_vault
from tests.trust.stand import followed, revoke, settled, token_of, turned

AUDIENCE = "artstore"
WITHIN_SECONDS = 1.0
"""A revocation is known within a second (docs/trust.md); the quickest of a few, on a busy machine."""
SOON_SECONDS = 15.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One that the tests share; each makes its own accounts."""
    with Installation(tmp_path_factory.mktemp("verified")) as made:
        settled(made)
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Installation]:
    """One whose keys a test may change."""
    with Installation(tmp_path) as made:
        settled(made)
        yield made


@pytest.fixture
def caller(service: Installation) -> Account:
    return service.account("user")


@pytest_asyncio.fixture
async def feed(service: Installation) -> AsyncIterator[TrustFeed]:
    """The feed of the service that verifies, under its own account."""
    async with followed(service, serving(service)) as opened:
        await opened.confirmed()
        yield opened


def serving(service: Installation) -> Account:
    """An account of a service that verifies: it may ask about tokens for its audience."""
    return service.account("readonly", served_audiences=[AUDIENCE])


def verifier(service: Installation, **options: Any) -> TokenVerifier:
    return TokenVerifier(service.issuer, audience=AUDIENCE, **options)


@pytest.fixture(scope="module")
def real_key(service: Installation) -> RSAKey:
    """The installation's own signing key: what it signs fails for its contents alone."""

    async def sealed() -> tuple[bytes, str]:
        store = SqlStore(service.settings.store_url)
        key = active(await store.signing_keys())
        await store.close()
        return key.sealed, key.kid

    vault = service.run(opened_vault(service.settings))
    value, kid = service.run(sealed())
    key = jwk.import_key(json.loads(vault.open(value, "signing key", kid)))
    assert isinstance(key, RSAKey)
    return key


async def test_keys_by_every_way(service: Installation, caller: Account) -> None:
    """The gRPC API by target or client, the JWKS URL, the issuer's metadata: the same token is accepted, and one for
    another audience is not."""
    target, sent = str(service.started.grpc_address), token_of(service, caller)
    async with Client(target) as client:
        for keys in (None, target, client, f"{service.url}/.well-known/jwks.json", IssuerKeys(service.issuer)):
            made = verifier(service, keys=keys)
            found = await made.verify(sent)
            assert (found.client_id, found.subject, found.role) == (caller.client_id, caller.id, "user")
            assert found.scopes == {"storage.read", "storage.write"}
            assert await made.verify(sent) is found
            other = TokenVerifier(service.issuer, audience="billing", keys=keys)
            with pytest.raises(WrongAudience):
                await other.verify(sent)


@pytest.mark.parametrize("flaw", [name for name in FORGED if name not in OURS])
def test_what_the_server_refuses(service: Installation, caller: Account, real_key: RSAKey, flaw: str) -> None:
    """The forgers of the server's own tests get nowhere here either, seen first or after the real token."""
    sent = token_of(service, caller)
    made = verifier(service, keys=str(service.started.grpc_address))
    for _ in range(2):
        with pytest.raises(TokenRefused):
            made.verify_sync(FORGED[flaw](sent, real_key))
        assert made.verify_sync(sent)


async def test_a_revocation_is_known_within_a_second(service: Installation, caller: Account, feed: TrustFeed) -> None:
    """Of a token that was accepted a moment before; others of the account stay good."""
    made = verifier(service, trust=feed)
    other = token_of(service, caller)
    await made.verify(other)
    took = []
    for _ in range(3):
        sent = token_of(service, caller)
        found = await made.verify(sent)
        await asyncio.to_thread(revoke, service, caller, sent)
        took.append(await turned(lambda sent=sent: refused(made, sent)))  # type: ignore[misc]
        with pytest.raises(TokenRevoked):
            made.recheck(found)
    assert min(took) < WITHIN_SECONDS
    assert await made.verify(other)


def refused(made: TokenVerifier, sent: str) -> bool:
    try:
        made.verify_sync(sent)
    except TokenRevoked:
        return True
    return False


async def test_a_suspension_is_known(service: Installation, caller: Account, feed: TrustFeed) -> None:
    """And its end, too."""
    made = verifier(service, trust=feed)
    sent = token_of(service, caller)
    await made.verify(sent)
    suspend = accounts_pb.SuspendServiceAccountRequest(id=caller.id)
    await asyncio.to_thread(service.accounts.SuspendServiceAccount, suspend, metadata=service.bearer())
    await turned(lambda: refused(made, sent))
    activate = accounts_pb.ActivateServiceAccountRequest(id=caller.id)
    await asyncio.to_thread(service.accounts.ActivateServiceAccount, activate, metadata=service.bearer())
    await turned(lambda: not refused(made, sent))


async def test_a_revoked_key_takes_its_tokens_along(own: Installation) -> None:
    """Within a second by the feed; a verifier without one learns it with its next key set. The new key's are good."""
    caller, target = own.account("user"), str(own.started.grpc_address)
    sent, root = token_of(own, caller), own.administrator
    async with (
        followed(own, serving(own)) as feed,
        AdminClient(target, client_id=root.client_id, client_secret=root.client_secret) as admin,
    ):
        await feed.confirmed()
        made = verifier(own, trust=feed)
        found = await made.verify(sent)
        await admin.revoke_signing_key(found.kid)
        gone: list[bool] = []

        def unknown() -> bool:
            try:
                made.verify_sync(sent)
            except UnknownKey:
                gone.append(True)
            return bool(gone)

        await turned(unknown)
        with pytest.raises(UnknownKey):
            await verifier(own, keys=target).verify(sent)
        fresh = await asyncio.to_thread(token_of, own, caller)
        assert (await made.verify(fresh)).kid != found.kid


async def test_a_silent_feed_has_the_service_asked(service: Installation, caller: Account) -> None:
    """By the account of the service that verifies, which may ask about tokens for its audience."""
    target, mine = str(service.started.grpc_address), serving(service)
    steps = itertools.count(0, 10)  # each reading is 10 s later: always stale
    async with Client(target, client_id=mine.client_id, client_secret=mine.secret) as client:
        async with TrustFeed(client, monotonic=lambda: float(next(steps))) as feed:
            await feed.ready()
            made = verifier(service, trust=feed)
            sent = token_of(service, caller)
            assert feed.stale
            assert (await made.verify(sent)).client_id == caller.client_id
            assert (await asyncio.to_thread(made.verify_sync, token_of(service, caller))).client_id == caller.client_id
            with pytest.raises(TrustStale):
                await verifier(service, trust=feed, on_stale="refuse").verify(sent)
        other = token_of(service, caller)
        revoke(service, caller, other)
        unopened = TrustFeed(client)
        with pytest.raises(TokenRevoked, match="not active"):
            await verifier(service, trust=unopened).verify(other)


# --- whole services ---


def handler(request: bytes, context: Any) -> bytes:
    return current_caller().client_id.encode()


def metadata(sent: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {sent}"),)


def test_a_service_with_threads(service: Installation, caller: Account) -> None:
    """No event loop of its own: the feed runs in a thread, has heard of the service when it is entered, and a
    revocation is known within a second all the same."""
    mine = serving(service)
    client = Client(str(service.started.grpc_address), client_id=mine.client_id, client_secret=mine.secret)
    sent = token_of(service, caller)
    with SyncTrustFeed(client) as feed, ThreadPoolExecutor(4) as pool:
        assert feed.staleness < timedelta.max
        table = {"/b.B/Do": scope("storage.read")}
        server = grpc.server(pool, interceptors=[BearerInterceptor(verifier(service, trust=feed), table)])
        does = {"Do": grpc.unary_unary_rpc_method_handler(handler)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("b.B", does),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            do = channel.unary_unary("/b.B/Do")
            assert do(b"", metadata=metadata(sent)) == caller.client_id.encode()
            revoke(service, caller, sent)
            code, started = None, time.monotonic()
            while code is not grpc.StatusCode.UNAUTHENTICATED:
                assert time.monotonic() - started < SOON_SECONDS
                try:
                    do(b"", metadata=metadata(sent))
                except grpc.RpcError as error:
                    code = error.code()  # type: ignore[attr-defined]
        server.stop(None).wait()


async def test_a_stream_ends_with_its_token(service: Installation, caller: Account, feed: TrustFeed) -> None:
    """Under grpc.aio, although its handler waits for something that never comes."""
    over = asyncio.Event()

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield current_caller().client_id.encode()
        try:
            await asyncio.Event().wait()
        finally:
            over.set()

    table = {"/b.B/Watch": scope("storage.read")}
    server = grpc.aio.server(interceptors=[AioBearerInterceptor(verifier(service, trust=feed), table)])
    watches = {"Watch": grpc.unary_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("b.B", watches),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sent = token_of(service, caller)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_stream("/b.B/Watch")(b"", metadata=metadata(sent))
        assert await call.read() == caller.client_id.encode()
        await asyncio.to_thread(revoke, service, caller, sent)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call.read(), SOON_SECONDS)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert over.is_set(), "its handler was ended"
    await server.stop(None)
