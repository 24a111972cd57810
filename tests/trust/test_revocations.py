"""The cacheable twin of the feed, over HTTP as its users get it: signed, stated, and never fresher than its server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as pb
from joserfc.jws import extract_compact

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.gateway import protocol
from artstore_grpc.keys import Keyring
from artstore_grpc.records import SYSTEM, Event, EventKind
from artstore_grpc.replica import Replica
from artstore_grpc.revocations import Revocations
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import Vault, new_root
from tests.api.doors import lone_gateway
from tests.installation import Account, Installation, refusal
from tests.trust.stand import settled, watches_of
from tests.trust.test_view import resident_bytes

URL = "/.well-known/revocations"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path) as installation:
        settled(installation)
        yield installation


def get(service: Installation, **headers: str) -> httpx.Response:
    return httpx.get(service.url + URL, headers=headers, trust_env=False)


def verified(service: Installation, text: str) -> dict[str, Any]:
    """The claims, by a verifier that others wrote."""
    key = jwt.PyJWKClient(f"{service.url}/.well-known/jwks.json").get_signing_key_from_jwt(text)
    options: Any = {"require": ["iss", "iat", "exp"], "verify_aud": False, "verify_iat": False, "verify_exp": False}
    claims: dict[str, Any] = jwt.decode(text, key.key, algorithms=["RS256"], issuer=service.issuer, options=options)
    return claims


def revoked(service: Installation) -> tuple[Account, dict[str, Any]]:
    account = service.account("user")
    token = service.token(account.client_id, account.secret)
    service.tokens.RevokeToken(
        pb.RevokeTokenRequest(token=token, client_id=account.client_id, client_secret=account.secret)
    )
    claims: dict[str, Any] = json.loads(extract_compact(token.encode()).payload)
    return account, claims


def test_it_says_what_the_feed_says(service: Installation) -> None:
    """Revoked tokens with their `exp`, refused accounts, the sequence; signed by a published key, under a `typ` that no
    access token has."""
    account, claims = revoked(service)
    request = accounts_pb.SuspendServiceAccountRequest(id=account.id)
    service.accounts.SuspendServiceAccount(request, metadata=service.bearer())
    answer = get(service)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jwt")
    assert answer.headers["cache-control"] == "public, max-age=5"
    assert extract_compact(answer.content).headers()["typ"] == "revocations+jwt"
    told = verified(service, answer.text)
    assert told["jtis"] == {claims["jti"]: claims["exp"]}
    assert told["accounts"] == {account.id: "suspended"}
    assert told["epochs"] == {}
    assert told["exp"] - told["iat"] == 60
    assert told["sequence"] > 0
    assert len(bytes.fromhex(told["hash"])) == 32


def test_it_is_no_access_token(service: Installation) -> None:
    """Though signed by the same key it is refused as a bearer token."""
    metadata = (("authorization", f"Bearer {get(service).text}"),)
    with pytest.raises(Exception, match="UNAUTHENTICATED"):
        service.accounts.ListServiceAccounts(accounts_pb.ListServiceAccountsRequest(), metadata=metadata)


def test_who_has_it_is_told_304(service: Installation) -> None:
    """Until something changes, or half of its life is over; then there is another one."""
    first = get(service)
    again = get(service, **{"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    service.clock.advance(timedelta(seconds=31))
    later = get(service, **{"if-none-match": first.headers["etag"]})
    assert later.status_code == 200
    assert later.headers["etag"] != first.headers["etag"]


def test_a_revocation_is_in_it_within_a_second(service: Installation) -> None:
    """What was signed before is not given again for longer than that."""
    get(service)
    _, claims = revoked(service)
    started = time.monotonic()
    while claims["jti"] not in verified(service, get(service).text)["jtis"]:
        assert time.monotonic() - started < 2
        time.sleep(0.05)


async def test_a_server_that_is_cut_off_signs_no_freshness(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """`iat` is when it last read the ledger; once that is a lifetime ago it signs nothing."""
    seconds = 1_900_000_000.0

    def now() -> datetime:
        return datetime.fromtimestamp(seconds, UTC)

    async def down() -> Any:
        raise StoreUnavailable("down")

    replica = Replica(store, now, outage_window=timedelta(minutes=5), monotonic=lambda: seconds)
    keyring = Keyring(store, Vault(new_root()), now, algorithm="ES256", issuer="https://issuer.example")
    await keyring.load()
    await replica.load()
    listed = Revocations(replica, keyring, now, issuer="https://issuer.example")
    assert issued_at((await listed.signed()).text) == 1_900_000_000
    monkeypatch.setattr(store, "head", down)
    seconds += 40
    await replica.poll()
    assert issued_at((await listed.signed()).text) == 1_900_000_000
    seconds += 31
    await replica.poll()
    with pytest.raises(StoreUnavailable):
        await listed.signed()
    monkeypatch.undo()
    await replica.poll()
    assert issued_at((await listed.signed()).text) == 1_900_000_071


def issued_at(text: str) -> int:
    iat: int = json.loads(extract_compact(text.encode()).payload)["iat"]
    return iat


async def test_who_goes_away_hides_nothing(store: SqlStore) -> None:
    """A caller that gives up while a list is being signed leaves the others the new one, not the old one as if it were
    new."""
    seconds = 1_900_000_000.0

    def now() -> datetime:
        return datetime.fromtimestamp(seconds, UTC)

    replica = Replica(store, now, outage_window=timedelta(minutes=5), monotonic=lambda: seconds)
    keyring = Keyring(store, Vault(new_root()), now, algorithm="ES256", issuer="https://issuer.example")
    await keyring.load()
    await replica.load()
    listed = Revocations(replica, keyring, now, issuer="https://issuer.example")
    await listed.signed()
    async with store.unit() as unit:
        detail = {"account_id": "a", "expire_time": (now() + timedelta(hours=1)).isoformat()}
        unit.record(Event(now(), SYSTEM, EventKind.TOKEN_REVOKED, "revoked", detail))
    await replica.poll()
    seconds += 2
    impatient = asyncio.create_task(listed.signed())
    await asyncio.sleep(0)
    impatient.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await impatient
    assert "revoked" in json.loads(extract_compact((await listed.signed()).text.encode()).payload)["jtis"]


async def test_no_list_by_a_revoked_key(store: SqlStore) -> None:
    """One that was signed between the news of a revoked key and the reading of its successor is given to nobody."""

    def now() -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)

    keyring = Keyring(store, Vault(new_root()), now, algorithm="ES256", issuer="https://issuer.example")
    await keyring.load()
    replica = Replica(store, now, outage_window=timedelta(minutes=5))
    await replica.load()
    listed = Revocations(replica, keyring, now, issuer="https://issuer.example")
    before = await listed.signed()
    await keyring.reload()
    assert await listed.signed() is not before
    assert await listed.signed() is await listed.signed()


def fill(service: Installation) -> None:
    """So many revocations that a list has some 7 MB."""

    async def add() -> None:
        trust = watches_of(service).trust
        trust._revoked.update({f"{number:032x}": (2_000_000_000, "a") for number in range(100_000)})
        trust.changed += 1

    service.run(add())
    time.sleep(1.1)


def asked(service: Installation) -> socket.socket:
    """A connection that asked for the list, and takes in little of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", int(service.url.rpartition(":")[2])))
    connection.sendall(f"GET {URL} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    return connection


def test_who_does_not_read(service: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few that take a long list and don't read it cost little memory, keep out nobody but themselves, and are cut off
    after a while."""
    monkeypatch.setattr(protocol, "ANSWER_SECONDS", 3.0)
    fill(service)
    assert len(get(service).content) > 5_000_000
    before = resident_bytes()
    stalled = [asked(service) for _ in range(4)]
    time.sleep(0.5)
    assert resident_bytes() - before < 25_000_000
    refused = get(service)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["reason"] == "TOO_MANY_LISTS"
    deadline = time.monotonic() + 10
    while get(service).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for connection in stalled:
        with connection:
            assert received(connection) < 5_000_000


def received(connection: socket.socket) -> int:
    """How many bytes still come until the connection ends."""
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 20):
            count += len(part)
    return count


def test_strangers_get_no_list_over_grpc(service: Installation) -> None:
    """There a whole answer is held for who doesn't read it."""
    answer = refusal(lambda: service.tokens.GetRevocations(pb.GetRevocationsRequest()))
    assert answer == (grpc.StatusCode.PERMISSION_DENIED, "NOT_A_GATEWAY")


def test_a_gateway_that_runs_alone_asks_for_a_list_once(tmp_path: Path) -> None:
    """Until there is another it is told that there isn't, however often it is asked itself."""
    trusted = (ip_network("127.0.0.0/8"),)
    with Installation(tmp_path, trusted_proxies=trusted) as service, lone_gateway(service) as url:
        settled(service)
        first = httpx.get(url + URL, trust_env=False)
        assert (first.status_code, first.text) == (200, get(service).text)
        assert httpx.get(url + URL, trust_env=False).text == first.text
        etag = first.headers["etag"]
        assert httpx.get(url + URL, headers={"if-none-match": etag}, trust_env=False).status_code == 304
        again = service.tokens.GetRevocations(pb.GetRevocationsRequest(etag=etag.strip('"')))
        assert (again.etag, again.revocations) == (etag.strip('"'), "")
        _, claims = revoked(service)
        deadline = time.monotonic() + 3
        while claims["jti"] not in verified(service, httpx.get(url + URL, trust_env=False).text)["jtis"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
