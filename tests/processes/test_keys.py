"""Rotations across real processes on one PostgreSQL: constantly issued, constantly verified, raced for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import jwt
import pytest
from artstore.identity.v1 import key_service_pb2 as pb
from artstore.identity.v1.key_service_pb2_grpc import KeyServiceStub
from artstore.identity.v1.token_service_pb2 import KEY_STATE_ACTIVE

from tests.processes import chain
from tests.processes.service import CALL_SECONDS, Client, Installation, Service, replicas, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROTATIONS = 30
QUICK = {
    "ARTSTORE_JWKS_MAX_AGE": "2",
    "ARTSTORE_KEY_ROTATION_INTERVAL": "0",
    "ARTSTORE_SIGNING_ALGORITHM": "ES256",
}
"""A key may sign 3 s after it was made; key sets may be kept for a second."""


@dataclass
class Verifier:
    """Keeps one replica's key set for as long as `Cache-Control` says, and knows no key besides."""

    url: str
    keys: dict[str, jwt.PyJWK] = field(default_factory=dict)
    until: float = 0.0
    fetches: int = 0
    kept: int = 0
    failures: list[str] = field(default_factory=list)

    def verify(self, token: str, http: httpx.Client) -> None:
        asked = time.monotonic()
        if asked >= self.until:
            response = http.get(f"{self.url}/.well-known/jwks.json")
            self.keys = {str(key.key_id): key for key in jwt.PyJWKSet.from_dict(response.json()).keys}
            self.until = asked + int(response.headers["cache-control"].removeprefix("public, max-age="))
            self.fetches += 1
        else:
            self.kept += 1
        key = self.keys.get(jwt.get_unverified_header(token)["kid"])
        if key is None:
            self.failures.append("signed by a key that was not published")
            return
        try:
            jwt.decode(token, key, algorithms=["ES256"], audience="artstore", leeway=1)
        except jwt.PyJWTError as error:
            self.failures.append(repr(error))


def signing_keys(client: Client) -> list[pb.SigningKey]:
    stub = KeyServiceStub(client.channel)
    answer = stub.ListSigningKeys(pb.ListSigningKeysRequest(), metadata=client.bearer, timeout=CALL_SECONDS)
    return list(answer.signing_keys)


def active(client: Client) -> str:
    (kid,) = [key.kid for key in signing_keys(client) if key.state == KEY_STATE_ACTIVE]
    return str(kid)


def rotate(client: Client) -> pb.SigningKey:
    stub = KeyServiceStub(client.channel)
    request = pb.RotateSigningKeyRequest()
    answer: pb.RotateSigningKeyResponse = stub.RotateSigningKey(request, metadata=client.bearer, timeout=CALL_SECONDS)
    return answer.signing_key


def signs_with(client: Client) -> str:
    """The key of a token that this replica issues now."""
    who = client.installation.administrator
    token = client.issue(who.client_id, who.client_secret).access_token
    return str(jwt.get_unverified_header(token)["kid"])


def verifying(services: list[Service], installation: Installation, stop: threading.Event, at: int) -> Verifier:
    """Issues by one replica, verifies by another's key set, until told to stop; old tokens too."""
    verifier, tokens = Verifier(services[(at + 1) % len(services)].gateway_url), []
    who = installation.administrator
    with Client(services[at].grpc_address, installation) as client, httpx.Client(trust_env=False) as http:
        while not stop.is_set():
            tokens.append(client.issue(who.client_id, who.client_secret).access_token)
            verifier.verify(tokens[-1], http)
            verifier.verify(tokens[len(tokens) // 2], http)
            verifier.verify(tokens[0], http)
            stop.wait(0.02)
    return verifier


def test_thirty_rotations_refuse_no_token(tmp_path: Path, on_postgres: Installation) -> None:
    """Two processes, 30 rotations, tokens issued and verified all the time by verifiers that obey `Cache-Control`: zero
    valid tokens refused, zero signed by a key not yet published; every process signs with the new key within 1 s."""
    stop, took = threading.Event(), list[float]()
    with replicas(tmp_path, on_postgres.environment | QUICK, 2) as services, ExitStack() as stack:
        clients = [stack.enter_context(Client(each.grpc_address, on_postgres)) for each in services]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        work = [pool.submit(verifying, services, on_postgres, stop, at) for at in range(2)]
        try:
            for turn in range(ROTATIONS):
                following = rotate(clients[turn % 2]).kid
                until(lambda kid=following: kid == active(clients[0]), 30.0, "active")  # type: ignore[misc]
                since = time.monotonic()
                until(lambda kid=following: {kid} == {signs_with(each) for each in clients}, 30.0, "all sign with it")  # type: ignore[misc]
                took.append(time.monotonic() - since)
        finally:
            stop.set()
        verifiers = [each.result() for each in work]
    checks = sum(each.fetches + each.kept for each in verifiers)
    print(f"{checks} checks, {sum(each.fetches for each in verifiers)} fetches, all sign in {max(took):.3f} s at most")
    assert [failure for verifier in verifiers for failure in verifier.failures] == []
    assert all(each.kept for each in verifiers), "max-age was never used"
    assert median(took) < 1.0, "a busy machine may hold up a few"
    kinds = chain.verified(on_postgres.environment["ARTSTORE_DATABASE_URL"])
    assert kinds["key.activated"] == ROTATIONS


@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_race_make_one_key_a_rotation(tmp_path: Path, on_postgres: Installation, count: int) -> None:
    """All told to rotate at once, again and again, while their own jobs find it due: each key that was made took over
    once, one is prepared, one is active, and no two took over within the time that a key must be known for."""
    settings = QUICK | {"ARTSTORE_KEY_ROTATION_INTERVAL": "4"}
    with replicas(tmp_path, on_postgres.environment | settings, count) as services, ExitStack() as stack:
        clients = [stack.enter_context(Client(each.grpc_address, on_postgres)) for each in services]
        pool = stack.enter_context(ThreadPoolExecutor(count))
        assert all(each.bearer for each in clients)
        for _ in range(8):
            answers = list(pool.map(at_once(count, rotate), clients))
            assert len({key.kid for key in answers}) <= 2, "more than the one that took over and the one after it"
            time.sleep(1.1)
        for service in services:
            service.terminate()
        assert [service.wait() for service in services] == [0] * count
    kinds = chain.verified(on_postgres.environment["ARTSTORE_DATABASE_URL"])
    print(dict(kinds))
    assert kinds["key.activated"] >= 2
    assert kinds["key.activated"] == kinds["key.retired"]
    assert kinds["key.created"] in (kinds["key.activated"] + 1, kinds["key.activated"] + 2)


def at_once(count: int, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The work, begun by so many threads in the same moment."""
    barrier = threading.Barrier(count)

    def begin(argument: Any) -> Any:
        barrier.wait(CALL_SECONDS)
        return work(argument)

    return begin
