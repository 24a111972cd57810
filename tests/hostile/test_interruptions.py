"""Callers that give up, never start, or go away in the middle: nothing is left behind."""

from __future__ import annotations

import json
import random
import time
from contextlib import closing
from typing import Any

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb

from tests.hostile import frames
from tests.hostile.test_metadata import ISSUE
from tests.hostile.victim import Victim, outcome

LIST = "/artstore.identity.v1.ServiceAccountService/ListServiceAccounts"
CREATE = "/artstore.identity.v1.ServiceAccountService/CreateServiceAccount"
ISSUE_PATH = "/artstore.identity.v1.TokenService/IssueToken"
POOL = 10
"""Connections of one process to its database: more lost ones than that would be noticed."""


@pytest.mark.parametrize("path", [LIST, CREATE])
def test_cancelled_in_the_middle(each_victim: Victim, path: str) -> None:
    """Calls cancelled at random moments, far more of them than the pool has connections, poison nothing."""
    stub: Any = each_victim.installation.channel.unary_unary(path)
    moments = random.Random(0)
    account = pb.ServiceAccount(role=pb.ROLE_USER)
    for number in range(10 * POOL):
        account.name = f"cancelled {number} {each_victim.target.id}"
        request = pb.CreateServiceAccountRequest(service_account=account) if path == CREATE else pb.ServiceAccount()
        call = stub.future(request.SerializeToString(), metadata=each_victim.bearer)
        time.sleep(moments.uniform(0, 0.006))
        call.cancel()
    each_victim.assert_idle()
    lister: Any = each_victim.installation.channel.unary_unary(LIST)
    for answer in [lister.future(b"", metadata=each_victim.bearer) for _ in range(POOL)]:
        assert answer.result(timeout=30)


def test_cancelled_rotations_are_whole(each_victim: Victim) -> None:
    """A rotation that its caller gave up is either done or not begun: the ledger's chain and the secrets agree."""
    target = each_victim.fresh_target()
    stub: Any = each_victim.installation.channel.unary_unary(CREATE.replace("CreateServiceAccount", "RotateSecret"))
    for wait in (0.001, 0.002, 0.004, 0.008, 0.016):
        call = stub.future(pb.RotateSecretRequest(id=target.id).SerializeToString(), metadata=each_victim.bearer)
        time.sleep(wait)
        call.cancel()
    each_victim.assert_idle()
    got = each_victim.send("GetServiceAccount", pb.GetServiceAccountRequest(id=target.id))
    account = pb.GetServiceAccountResponse.FromString(got.data).service_account
    assert 1 <= len(account.secrets) <= 2


@pytest.mark.parametrize("timeout", ["0n", "1n", "1u", "0S", "1m"])
def test_deadline_already_passed(victim: Victim, timeout: str) -> None:
    """A call whose time is up on arrival is DEADLINE_EXCEEDED or was quick enough; it is never a defect."""
    made = frames.connected(victim.installation.started.grpc_address.port)
    with closing(made):
        header = frames.request(ISSUE_PATH, **{"grpc-timeout": timeout})
        made.sendall(frames.frame(frames.HEADERS, frames.END_HEADERS, 1, header))
        made.sendall(frames.frame(frames.DATA, frames.END_STREAM, 1, frames.message(ISSUE.SerializeToString())))
        assert made.recv(100)


def test_no_time_left(victim: Victim) -> None:
    """A caller's own deadline of nothing is answered in time."""
    for timeout in (0.0, 0.0001, 0.001):
        stub: Any = victim.installation.channel.unary_unary(LIST)
        error = stub.future(b"", timeout=timeout, metadata=victim.bearer).exception(timeout=30)
        assert error is None or outcome(error).code == "DEADLINE_EXCEEDED"


def test_reset_streams(victim: Victim) -> None:
    """A thousand calls reset right after they were sent (the rapid reset of CVE-2023-44487) leave nothing in flight."""
    made = frames.connected(victim.installation.started.grpc_address.port)
    cancel = (8).to_bytes(4, "big")
    block = frames.request(ISSUE_PATH)
    body = frames.message(ISSUE.SerializeToString())
    with closing(made):
        for stream in range(1, 2001, 2):
            made.sendall(
                frames.frame(frames.HEADERS, frames.END_HEADERS, stream, block)
                + frames.frame(frames.DATA, frames.END_STREAM, stream, body)
                + frames.frame(frames.RST_STREAM, 0, stream, cancel)
            )
    victim.assert_idle()


def test_calls_without_a_message(victim: Victim) -> None:
    """Calls whose message never comes hold up nobody else, and take no place among the calls in flight."""
    made = frames.connected(victim.installation.started.grpc_address.port)
    with closing(made):
        for stream in range(1, 401, 4):
            made.sendall(frames.frame(frames.HEADERS, frames.END_HEADERS, stream, frames.request(ISSUE_PATH)))
            ended = frames.END_HEADERS | frames.END_STREAM
            made.sendall(frames.frame(frames.HEADERS, ended, stream + 2, frames.request(ISSUE_PATH)))
        assert victim.installation.token(victim.honest.client_id, victim.honest.secret)
        assert victim.in_flight() == 0


def test_cancellation_is_logged_as_one(victim: Victim) -> None:
    """Who gave up is in the log as that, not as a defect of ours."""
    stub: Any = victim.installation.channel.unary_unary(CREATE)
    account = pb.ServiceAccount(name=f"slow {victim.fresh_target().id}", role=pb.ROLE_USER)
    call = stub.future(
        pb.CreateServiceAccountRequest(service_account=account).SerializeToString(), metadata=victim.bearer
    )
    call.cancel()
    victim.assert_idle()
    for line in victim.installation.log.getvalue().splitlines()[-3:]:
        assert json.loads(line)["level"] == "info"
