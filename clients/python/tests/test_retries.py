"""Which calls are made again, how often, how soon: the policy by itself, and the client against a server that fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from artstore.identity import AdminClient, Client, IdentityError, RetryPolicy, ServiceAccount, Unavailable, connection
from artstore.identity.errors import DOMAIN, from_rpc_error
from artstore.identity.retries import (
    BUDGET,
    BY_REQUEST_ID,
    PUSHBACK_KEY,
    REPEATABLE,
    UNANSWERED,
    Budget,
    may_be_repeated,
    retry_after,
)
from artstore.identity.v1 import audit_service_pb2
from artstore.identity.v1 import service_account_service_pb2 as accounts
from artstore.identity.v1 import token_service_pb2 as tokens
from canned import SERVICES, Canned, Refused
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from joserfc import jwk

QUICK = RetryPolicy(first_wait=timedelta(milliseconds=10), max_wait=timedelta(milliseconds=20))
ME: dict[str, Any] = {"client_id": "sa_dev_test_00000000", "client_secret": "the-secret"}
ISSUED = tokens.IssueTokenResponse(access_token="a-token", expires_in=1800)
CHANGES = {
    "UpdateServiceAccount",
    "DeleteServiceAccount",
    "UndeleteServiceAccount",
    "SuspendServiceAccount",
    "ActivateServiceAccount",
    "RevokeSecret",
    "RunRotations",
    "PrepareSigningKey",
    "ActivateSigningKey",
    "RetireSigningKey",
    "RevokeSigningKey",
    "RotateSigningKey",
}
"""Methods that are never made again: twice isn't once, or an etag is used up by the first time."""
STREAM, FOR_GATEWAYS = "WatchTrust", "GetRevocations"


def unavailable(*details: Any) -> Refused:
    return Refused(grpc.StatusCode.UNAVAILABLE, "Down.", ErrorInfo(reason="DOWN", domain=DOMAIN), *details)


def failing(times: int, answer: Any, refusal: Callable[[], Refused] = unavailable) -> Callable[[Any], Any]:
    """An answer, after so many failures."""
    left = [times]

    def answered(_: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise refusal()
        return answer

    return answered


def test_every_method_is_decided_upon() -> None:
    """A new method of the API must be put among those that may be repeated or those that may not."""
    services = [*SERVICES, audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]]
    methods = {method.input_type.name: method.name for service in services for method in service.methods}
    known = {kind.__name__ for kind in REPEATABLE | BY_REQUEST_ID}
    assert {methods[name] for name in methods if name not in known} == CHANGES | {STREAM, FOR_GATEWAYS}
    assert known <= methods.keys()


def test_writes_may_be_repeated_by_their_request_id() -> None:
    """Create and rotate with one, and not without."""
    for kind in (accounts.CreateServiceAccountRequest, accounts.RotateSecretRequest):
        assert not may_be_repeated(kind())
        assert may_be_repeated(kind(request_id="0b0e3d3a-3a0e-4d8e-8f0e-2d5d3c1b7a10"))


def test_the_waits() -> None:
    """0.1, 0.2, 0.4, 0.8, 1 and 1 s, of which at most a half is taken off."""
    policy = RetryPolicy()
    assert [policy.wait_seconds(n, 0.0) for n in range(1, 7)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert [policy.wait_seconds(n, 1.0) for n in range(1, 5)] == [0.05, 0.1, 0.2, 0.4]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": 21},
        {"first_wait": timedelta(0)},
        {"first_wait": timedelta(seconds=2), "max_wait": timedelta(seconds=1)},
        {"max_wait": timedelta(minutes=2)},
    ],
)
def test_settings_out_of_bounds(wrong: dict[str, Any]) -> None:
    """Each setting has bounds."""
    with pytest.raises(ValueError, match="must be"):
        RetryPolicy(**wrong)


def test_the_budget() -> None:
    """Fifty failures spend it; ten successes are good for one retry more."""
    budget = Budget()
    for _ in range(int(BUDGET / 2) - 1):
        budget.failed()
    assert not budget.spent
    budget.failed()
    assert budget.spent
    for _ in range(10):
        budget.succeeded()
    assert not budget.spent
    budget.failed()
    assert budget.spent


@pytest.mark.parametrize(
    ("told", "trailing", "seconds"),
    [
        (None, (), 0.0),
        (2.5, (), 2.5),
        (None, ((PUSHBACK_KEY, "250"),), 0.25),
        (2.5, ((PUSHBACK_KEY, "250"),), 2.5),
        (None, ((PUSHBACK_KEY, "-1"),), None),
        (None, ((PUSHBACK_KEY, "soon"),), None),
        (None, ((PUSHBACK_KEY, b"\xff"),), None),
    ],
)
def test_what_the_server_says(told: float | None, trailing: Any, seconds: float | None) -> None:
    """RetryInfo and gRFC A6's pushback: the longer one counts, and one that is negative or no number forbids it."""
    error = Unavailable(grpc.StatusCode.UNAVAILABLE, "DOWN", "", retry_after=told and timedelta(seconds=told))
    assert retry_after(error, trailing) == seconds


def test_other_codes_are_final() -> None:
    """A refusal is one, and a deadline that has passed has passed."""
    for code in set(grpc.StatusCode) - {grpc.StatusCode.OK, *UNANSWERED}:
        assert retry_after(IdentityError(code, "", ""), ()) is None


async def test_it_goes_on_until_it_is_answered(server: Canned) -> None:
    """Four failures are nobody's concern; the fifth is the caller's."""
    async with Client(server.target, **ME, retry=QUICK) as client:
        server.answers["IssueToken"] = failing(4, ISSUED)
        assert (await client.issue_token()).access_token == "a-token"
        assert len(server.named("IssueToken")) == 5
        server.answers["IssueToken"] = failing(5, ISSUED)
        with pytest.raises(Unavailable):
            await client.issue_token()
        assert len(server.named("IssueToken")) == 10


async def test_a_server_that_shuts_down(server: Canned) -> None:
    """CANCELLED from a server is a call that nobody answered: it is made again, and Unavailable in the end."""
    async with Client(server.target, **ME, retry=QUICK) as client:
        server.answers["IssueToken"] = failing(1, ISSUED, lambda: Refused(grpc.StatusCode.CANCELLED))
        assert (await client.issue_token()).access_token == "a-token"
        server.answers["IssueToken"] = failing(5, ISSUED, lambda: Refused(grpc.StatusCode.CANCELLED))
        with pytest.raises(Unavailable) as caught:
            await client.issue_token()
    assert caught.value.reason == "UNREACHABLE"


async def test_a_client_closed_while_it_waits(server: Canned) -> None:
    """A call that would be made again on a client that was closed fails as it is."""
    policy = RetryPolicy(first_wait=timedelta(seconds=1))
    server.answers["IssueToken"] = failing(100, ISSUED)
    client = Client(server.target, **ME, retry=policy)
    async with client:
        asking = asyncio.create_task(client.issue_token())
        await asyncio.sleep(0.3)  # it was refused long ago, and waits
        assert len(server.named("IssueToken")) == 1
    with pytest.raises(Unavailable):
        await asking


async def test_never_again(server: Canned) -> None:
    """max_attempts=1 is one call."""
    async with Client(server.target, **ME, retry=RetryPolicy(max_attempts=1)) as client:
        server.answers["IssueToken"] = failing(1, ISSUED)
        with pytest.raises(Unavailable):
            await client.issue_token()
        assert len(server.named("IssueToken")) == 1


async def test_writes(server: Canned, client: AdminClient) -> None:
    """A create is made again under its request_id, the same each time; without one, or a suspension, it fails."""
    server.answers["GetServerMetadata"] = lambda _: tokens.GetServerMetadataResponse(issuer="https://identity.example")
    server.answers["IssueToken"] = lambda _: ISSUED
    server.answers["CreateServiceAccount"] = failing(1, accounts.CreateServiceAccountResponse(client_secret="s"))
    await client.create_service_account(ServiceAccount(name="a"), request_id="0b0e3d3a-3a0e-4d8e-8f0e-2d5d3c1b7a10")
    one, two = (request.request_id for request, _ in server.named("CreateServiceAccount"))
    assert one == two
    server.answers["CreateServiceAccount"] = failing(1, accounts.CreateServiceAccountResponse())
    server.answers["SuspendServiceAccount"] = failing(1, accounts.SuspendServiceAccountResponse())
    for call in (client.create_service_account(ServiceAccount(name="a")), client.suspend_service_account("a")):
        with pytest.raises(Unavailable):
            await call
    assert len(server.named("CreateServiceAccount")) == 3
    assert len(server.named("SuspendServiceAccount")) == 1


async def test_an_assertion_is_made_anew(server: Canned) -> None:
    """Each attempt has one of its own: the service takes none twice, and the first may have reached it."""
    key = jwk.OKPKey.generate_key("Ed25519").as_dict(private=True)
    async with Client(
        server.target, client_id=ME["client_id"], private_key=key, issuer="https://identity.example", retry=QUICK
    ) as client:
        server.answers["IssueToken"] = failing(2, ISSUED)
        await client.issue_token()
    assert len({request.client_assertion for request, _ in server.named("IssueToken")}) == 3


async def test_it_waits_as_it_is_told(server: Canned) -> None:
    """RetryInfo is waited for where the deadline allows it; where it doesn't, the caller is told at once."""

    def later(seconds: float) -> Callable[[], Refused]:
        delay = Duration(nanos=round(seconds * 1e9) % 10**9, seconds=int(seconds))
        return lambda: unavailable(RetryInfo(retry_delay=delay))

    async with Client(server.target, **ME, retry=QUICK, timeout=timedelta(seconds=30)) as client:
        server.answers["IssueToken"] = failing(1, ISSUED, later(0.5))
        began = time.monotonic()
        await client.issue_token()
        assert time.monotonic() - began >= 0.5
        server.answers["IssueToken"] = failing(1, ISSUED, later(60))
        began = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await client.issue_token()
        assert caught.value.retry_after == timedelta(seconds=60)
        assert time.monotonic() - began < 25


async def test_the_deadline_is_of_all_attempts(server: Canned) -> None:
    """A client whose waits are longer than its timeout gives up in time."""
    policy = RetryPolicy(max_attempts=20, first_wait=timedelta(milliseconds=400), max_wait=timedelta(milliseconds=400))
    server.answers["IssueToken"] = failing(100, ISSUED)
    async with Client(server.target, **ME, retry=policy, timeout=timedelta(seconds=1)) as client:
        with pytest.raises(Unavailable):
            await client.issue_token()
    assert 1 <= len(server.named("IssueToken")) <= 5  # of waits of 0.2 s at least there are four in a second


async def test_a_wait_that_ends_after_the_deadline(server: Canned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loop was busy until the time was over, the call is not made again, and fails as it had failed."""
    moments = iter((0.0, 0.1, 10.0))  # of the call, of its failure, and after the wait
    monkeypatch.setattr(connection, "steady_seconds", lambda: next(moments))
    server.answers["IssueToken"] = failing(1, ISSUED)
    async with Client(server.target, **ME, retry=QUICK, timeout=timedelta(seconds=10)) as client:
        with pytest.raises(Unavailable):
            await client.issue_token()
    assert len(server.named("IssueToken")) == 1


async def test_an_outage_spends_the_budget(server: Canned) -> None:
    """A client makes fifty retries in an outage and then none, over all its calls."""
    server.answers["IssueToken"] = failing(10_000, ISSUED)
    async with Client(server.target, **ME, retry=QUICK) as client:
        for _ in range(60):
            with pytest.raises(Unavailable):
                await client.issue_token()
    assert len(server.named("IssueToken")) <= 60 + BUDGET / 2


def test_nobody_there_is_unavailable() -> None:
    """What gRPC says of a connection that is refused is what is retried."""
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        call = channel.unary_unary("/a/b")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
    assert from_rpc_error(caught.value).code is grpc.StatusCode.UNAVAILABLE
