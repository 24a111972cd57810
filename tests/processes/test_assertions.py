"""An assertion is good once in the whole installation, however many processes it is sent to at once."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb

from tests.processes.service import CALL_SECONDS, ISSUER, Client, Installation, code_of, install, replicas
from tests.signers import ASSERTION_TYPE, Signer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RACERS = 50
ROUNDS = 3


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def shared(request: pytest.FixtureRequest) -> Installation:
    """An installation by where it remembers used assertions."""
    made = install(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))
    if request.param != "redis":
        return made
    redis = {"ARTSTORE_REDIS_URL": request.getfixturevalue("redis_server_url")}
    return Installation(made.environment | redis, made.administrator)


def test_raced(tmp_path: Path, shared: Installation) -> None:
    """Of 50 calls at once with one assertion, at two processes, exactly one gets a token; three times over."""
    with replicas(tmp_path, shared.environment, 2) as services, ExitStack() as stack:
        clients = [stack.enter_context(Client(service.grpc_address, shared)) for service in services]
        client_id = keyed_account(clients[0])
        pool = stack.enter_context(ThreadPoolExecutor(RACERS))
        for _ in range(ROUNDS):
            asked = issuing(Signer().assertion(client_id, ISSUER))
            codes = Counter(pool.map(lambda n, asked=asked: code_of(lambda: ask(clients[n % 2], asked)), range(RACERS)))
            assert codes.pop(grpc.StatusCode.OK) == 1
            assert set(codes) <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}


def keyed_account(client: Client) -> str:
    account = accounts_pb.ServiceAccount(name="keyed", role=accounts_pb.ROLE_USER, public_keys=[Signer().public])
    request = accounts_pb.CreateServiceAccountRequest(service_account=account, without_secret=True)
    made = client.accounts.CreateServiceAccount(request, metadata=client.bearer, timeout=CALL_SECONDS)
    return str(made.service_account.client_id)


def issuing(assertion: str) -> tokens_pb.IssueTokenRequest:
    return tokens_pb.IssueTokenRequest(
        grant_type="client_credentials", client_assertion_type=ASSERTION_TYPE, client_assertion=assertion
    )


def ask(client: Client, request: tokens_pb.IssueTokenRequest) -> object:
    return client.tokens.IssueToken(request, timeout=CALL_SECONDS)
