"""One answer for every wrong credential, whose true cause only the vault can tell; and the limits."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from artstore.identity.v1 import audit_service_pb2 as audit_pb
from artstore.identity.v1 import token_service_pb2 as pb

from artstore_grpc import secrets
from artstore_grpc.failures import FREE_FAILURES
from artstore_grpc.model import SECRET_LIFETIME
from artstore_grpc.rpc.status import DETAILS_KEY
from artstore_grpc.secrets import CHECKSUM_LENGTH, checksum
from artstore_grpc.vault import Vault
from tests.api.callers import GRANT, Api, basic
from tests.api.conftest import QUICK, administrator, first_account
from tests.api.doors import HttpDoor, Refused, opened, refused, told
from tests.installation import Account, Installation
from tests.roots import opened_vault

CAUSES = {
    "unknown id": "unknown client_id",
    "wrong secret": "unknown secret id",
    "wrong text": "wrong secret",
    "no secret of ours": "unknown secret id",
    "suspended": "account is suspended",
    "deleted": "account is deleted",
    "expired": "account is expired",
    "no credentials": "no credentials",
}
"""What the caller is never told, by the credentials that it sends."""


def test_a_denial_is_in_the_ledger(alone: Installation, root: Api) -> None:
    """One row for those of a minute: who was to be, from where, how often and why; the account stays in memory."""
    account = root.account()
    root.issue(account)
    for _ in range(3):
        with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
            root.issue(replace(account, secret=with_other_text(account.secret)))
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        root.issue(replace(account, client_id="sa_dev_x_00000000"))
    alone.clock.advance(timedelta(minutes=1))
    request = audit_pb.ListAuditEventsRequest(filter="kind = authentication.denied")
    for _ in range(200):
        found = root.door.call("ListAuditEvents", request, root.authorization).audit_events
        if len(found) == 2:
            break
        alone.run(asyncio.sleep(0.1))
    known, unknown = sorted(found, key=lambda row: row.subject != account.id)
    told = json.loads(known.detail)
    assert (known.actor, known.subject, told["client_id"]) == ("unauthenticated", account.id, account.client_id)
    assert (told["count"], told["causes"], told["source"]) == (3, {"wrong secret": 3}, "127.0.0.1")
    first = next(line for line in alone.log.getvalue().splitlines() if '"INVALID_CLIENT"' in line)
    assert told["request_id"] == json.loads(first)["request_id"]
    assert (unknown.subject, json.loads(unknown.detail)["causes"]) == ("unknown", {"unknown client_id": 1})
    assert account.secret not in alone.log.getvalue()


def test_a_stop_writes_what_was_denied(tmp_path: Path) -> None:
    """The last minute's denials are in the ledger once the service has stopped."""
    with (
        Installation(tmp_path, **QUICK) as service,
        opened("grpc", service) as door,
        refused("UNAUTHENTICATED", "INVALID_CLIENT"),
    ):
        Api(door, service.issuer, basic("sa_dev_x_00000000", "wrong")).issue()
    with closing(sqlite3.connect(service.settings.data_dir / "identity.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM ledger WHERE kind = 'authentication.denied'").fetchone()
    assert count == 1


def with_other_text(secret: str) -> str:
    """Well-formed and of the same secret id, but another secret."""
    body = secret[:-CHECKSUM_LENGTH]
    changed = body[:-1] + ("a" if body[-1] != "a" else "b")
    return changed + checksum(changed)


@dataclass(frozen=True)
class Denied:
    """An installation and the credentials that it denies, by what is wrong with them."""

    service: Installation
    authorizations: dict[str, str]
    vault: Vault


@pytest.fixture(scope="module")
def denied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Denied]:
    with Installation(tmp_path_factory.mktemp("denied")) as service, opened("grpc", service) as door:
        root = administrator(service, door)
        expired = used(root)
        service.clock.advance(SECRET_LIFETIME / 2)
        renewed = root.basic(first_account(service)).rotated(first_account(service))
        service.clock.advance(SECRET_LIFETIME / 2)
        root = root.bearer(renewed)
        accounts = {"expired": expired, **{name: used(root) for name in ("suspended", "deleted", "active")}}
        root.suspend(accounts["suspended"].id)
        root.delete(accounts["deleted"].id)
        vault = service.run(opened_vault(service.settings))
        yield Denied(service, authorizations(accounts), vault)


def used(root: Api) -> Account:
    """An account whose secret has succeeded once: its tag decides from now on."""
    account = root.account()
    root.token(account)
    return account


def authorizations(accounts: dict[str, Account]) -> dict[str, str]:
    active = accounts["active"]
    return {
        "unknown id": basic("sa_dev_nobody_00000000", active.secret),
        "wrong secret": basic(active.client_id, secrets.generate().text),
        "wrong text": basic(active.client_id, with_other_text(active.secret)),
        "no secret of ours": basic(active.client_id, "hunter2"),
        "no credentials": "",
        **{
            state: basic(accounts[state].client_id, accounts[state].secret)
            for state in ("suspended", "deleted", "expired")
        },
    }


def masked(refusal: Refused, answer: bytes) -> bytes:
    assert refusal.denial_id, "a denial has its id"
    return answer.replace(refusal.denial_id.encode(), b"*" * len(refusal.denial_id))


def over_grpc(service: Installation, authorization: str) -> tuple[Refused, Any]:
    """A denial over gRPC: what it says, and every byte of it but the denial_id."""
    metadata = (("authorization", authorization),) if authorization else ()
    with pytest.raises(grpc.RpcError) as caught:
        service.tokens.IssueToken(pb.IssueTokenRequest(grant_type=GRANT), metadata=metadata)
    error: Any = caught.value
    trailing = dict(error.trailing_metadata())
    refusal = told(error)
    trailing[DETAILS_KEY] = masked(refusal, trailing[DETAILS_KEY])
    return refusal, (error.code(), error.details(), sorted(trailing.items()), list(error.initial_metadata()))


def over_http(service: Installation, authorization: str) -> tuple[Refused, Any]:
    """A denial over HTTP likewise; the date and the request id are each answer's own."""
    door = HttpDoor(service.url)
    response = door.send("IssueToken", pb.IssueTokenRequest(grant_type=GRANT), authorization)
    with pytest.raises(Refused) as caught:
        door.call("IssueToken", pb.IssueTokenRequest(grant_type=GRANT), authorization)
    door.close()
    refusal = replace(caught.value, denial_id=response.json()["denial_id"])
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in (b"date", b"x-request-id")]
    return refusal, (response.status_code, masked(refusal, response.content), headers)


@pytest.mark.parametrize("over", [over_grpc, over_http])
def test_one_answer(denied: Denied, over: Any) -> None:
    """Every wrong credential is answered with the same bytes, but for a denial_id of one length."""
    answers = {wrong: over(denied.service, value) for wrong, value in denied.authorizations.items()}
    assert {str(answer) for _, answer in answers.values()} == {str(answers["unknown id"][1])}
    assert len({len(refusal.denial_id) for refusal, _ in answers.values()}) == 1
    assert {(refusal.code, refusal.reason) for refusal, _ in answers.values()} == {
        ("UNAUTHENTICATED", "INVALID_CLIENT")
    }


@pytest.mark.parametrize("over", [over_grpc, over_http])
def test_the_cause_is_sealed(denied: Denied, over: Any) -> None:
    """The denial_id holds the true cause, for the vault alone; the answer has no word of it."""
    for wrong, value in denied.authorizations.items():
        refusal, answer = over(denied.service, value)
        assert denied.vault.explain_denial(refusal.denial_id).split(":")[0] == CAUSES[wrong]
        assert CAUSES[wrong] not in str(answer)


def test_every_denial_id_is_another(denied: Denied) -> None:
    """Two denials of one cause can't be told to be of one cause."""
    ids = [over_grpc(denied.service, denied.authorizations["suspended"])[0].denial_id for _ in range(2)]
    assert ids[0] != ids[1]


def test_an_accounts_own_limit(admin: Api) -> None:
    """With a limit of five a minute the sixth call is refused, over whatever door, with the time to wait."""
    account, other = admin.account(rate_limit=5), admin.account(rate_limit=5)
    token = admin.token(account)
    for _ in range(4):
        assert admin.introspect(account, token).active
    for _ in range(2):
        with refused("RESOURCE_EXHAUSTED", "RATE_LIMITED") as caught:
            admin.issue(account)
        assert caught.value.retry_after is not None
        assert timedelta(0) < caught.value.retry_after <= timedelta(seconds=62)
    assert admin.token(other), "another account has its own limit"


def test_bearers_are_charged_too(admin: Api) -> None:
    """The limit counts what an account does with its tokens."""
    account = admin.account("auditor", rate_limit=3)
    caller = admin.bearer(account)
    caller.get(account.id)
    caller.get(account.id)
    with refused("RESOURCE_EXHAUSTED", "RATE_LIMITED"):
        caller.get(account.id)


def test_a_raised_limit_holds_at_once(admin: Api) -> None:
    """An operator who raises a limit need not wait a minute."""
    account = admin.account(rate_limit=1)
    admin.token(account)
    with refused("RESOURCE_EXHAUSTED", "RATE_LIMITED"):
        admin.token(account)
    admin.update(account.id, "rate_limit", rate_limit=100)
    assert admin.token(account)


def failing(admin: Api, authorization: str) -> list[str]:
    """The codes of one failure more than are free."""
    codes = []
    for _ in range(FREE_FAILURES + 1):
        with pytest.raises(Refused) as caught:
            replace(admin, authorization=authorization).issue()
        codes.append(caught.value.code)
        assert (caught.value.retry_after is not None) == (caught.value.code == "RESOURCE_EXHAUSTED")
    return codes


def test_who_is_held_up_is_told_by_a_denial_id_too(denied: Denied) -> None:
    """What an administrator finds in it: that it was the back-off, whose, and for which account."""
    for over in (over_grpc, over_http):
        wrong = basic("sa_dev_nobody_00000001", secrets.generate().text)
        for _ in range(FREE_FAILURES):
            over_grpc(denied.service, wrong)
        refusal, answer = over(denied.service, wrong)
        assert refusal.reason == "TOO_MANY_FAILURES"
        cause = denied.vault.explain_denial(refusal.denial_id)
        assert cause == "backing off, by secret and source: unknown client_id"
        assert "secret and source" not in str(answer)


def test_failures_slow_down(admin: Api) -> None:
    """Ten failures a minute are answered, the next one has to wait: for unknown ids exactly as for known ones."""
    account = admin.account()
    expected = ["UNAUTHENTICATED"] * FREE_FAILURES + ["RESOURCE_EXHAUSTED"]
    wrong = secrets.generate().text
    assert failing(admin, basic(account.client_id, wrong)) == expected
    assert failing(admin, basic(f"sa_dev_nobody_{account.id[:8]}", wrong)) == expected
    assert failing(admin, basic(account.client_id, "hunter2")) == expected
    assert admin.token(account), "other secrets' failures don't slow down a secret that never failed"


def test_a_secret_that_is_known_is_never_slowed(admin: Api) -> None:
    """Whoever guesses at a service's own secret can't shut it out: one that matches its tag passes."""
    account = admin.account()
    admin.token(account)
    codes = failing(admin, basic(account.client_id, with_other_text(account.secret)))
    assert codes[-1] == "RESOURCE_EXHAUSTED"
    assert admin.token(account)
