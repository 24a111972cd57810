"""AuditService over every door: rows, filters, pages, checkpoints, verification, denials explained."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import pytest
from artstore.identity.v1 import audit_service_pb2 as pb

from artstore_grpc import ledger, notary
from artstore_grpc.checkpoints import public_key
from artstore_grpc.cli.audit import row_of
from tests.api.callers import Api
from tests.api.conftest import administrator
from tests.api.doors import Refused, opened, refused
from tests.installation import Installation
from tests.processes.service import until


def call(api: Api, method: str, request: Any) -> Any:
    return api.door.call(method, request, api.authorization)


def listed(api: Api, **fields: Any) -> pb.ListAuditEventsResponse:
    response: pb.ListAuditEventsResponse = call(api, "ListAuditEvents", pb.ListAuditEventsRequest(**fields))
    return response


def verified(api: Api, **fields: Any) -> pb.VerifyAuditLogResponse:
    response: pb.VerifyAuditLogResponse = call(api, "VerifyAuditLog", pb.VerifyAuditLogRequest(**fields))
    return response


def test_rows_verify_as_they_are_listed(admin: Api) -> None:
    """Rows come in order, without a gap, with all that their hashes were made of, to the microsecond."""
    admin.account(description="ünïcode ✓")
    rows, token = [], ""
    while True:
        page = listed(admin, page_size=3, page_token=token)
        rows += [row_of(event) for event in page.audit_events]
        token = page.next_page_token
        if not token:
            break
    assert ledger.verify(rows)[0] == len(rows) > 3
    assert any(row.time.microsecond % 1000 for row in rows)


def test_filters(admin: Api) -> None:
    """Comparisons by kind, actor, subject, sequence and time, joined by AND, find the rows that satisfy them all."""
    account = admin.account()
    admin.suspend(account.id)
    mine = f"subject = {account.id}"
    created, suspended = listed(admin, filter=mine).audit_events
    cases = {
        mine: [created, suspended],
        f"{mine} AND kind = account.suspended": [suspended],
        f"{mine} AND kind = account.deleted": [],
        f"{mine} AND actor = nobody": [],
        f"{mine} AND actor = {created.actor}": [created, suspended],
        f"{mine} AND sequence > {created.sequence}": [suspended],
        f"{mine} AND sequence <= {created.sequence}": [created],
        f"{mine} AND sequence >= {created.sequence} AND sequence < {suspended.sequence}": [created],
        f'{mine} AND time > "{created.time.ToJsonString()}"': [suspended],
        f'{mine} AND time <= "{created.time.ToJsonString()}"': [created],
        f'{mine} AND time >= "2001-01-01T00:00:00+02:00"': [created, suspended],
    }
    for asked, expected in cases.items():
        assert list(listed(admin, filter=asked).audit_events) == expected, asked


@pytest.mark.parametrize(
    "filter",
    [
        "kind",
        "kind != x",
        "kind : x",
        "role = user",
        "sequence = 1",
        "sequence > x",
        "sequence > -1",
        "sequence > 9223372036854775808",
        "time > 5",
        "time = 2030-01-01T00:00:00Z",
        "kind = a OR kind = b",
        "x" * 1001,
    ],
    ids=lambda value: value[:40],
)
def test_filters_that_cannot_be_read(admin: Api, filter: str) -> None:
    """A filter beyond the grammar is refused by name."""
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "filter"):
        listed(admin, filter=filter)


def test_pages(admin: Api) -> None:
    """A page's token is good for its own query only; sizes are bounded."""
    token = listed(admin, page_size=1).next_page_token
    assert listed(admin, page_size=1, page_token=token).audit_events[0].sequence == 2
    for fields in ({"filter": "sequence > 0", "page_token": token}, {"page_token": "x"}, {"page_token": token[:-2]}):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            listed(admin, **fields)
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
        call(admin, "ListAuditCheckpoints", pb.ListAuditCheckpointsRequest(page_token=token))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "page_size"):
        listed(admin, page_size=-1)
    assert len(listed(admin, page_size=100_000).audit_events) <= 1000


def test_the_newest_first(admin: Api) -> None:
    """`order_by` turns the list round, page by page; a page's token is good for its own order only."""
    admin.account()
    forward = [event.sequence for event in listed(admin, page_size=1000, filter="sequence <= 9").audit_events]
    found, token = [], ""
    while True:
        page = listed(admin, page_size=2, page_token=token, filter="sequence <= 9", order_by=" sequence  desc")
        found += [event.sequence for event in page.audit_events]
        if not page.next_page_token:
            break
        token = page.next_page_token
    assert found == forward[::-1] != []
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
        listed(admin, page_token=token, filter="sequence <= 9")
    assert listed(admin, order_by="sequence", page_size=1).audit_events[0].sequence == 1
    for order in ("time", "sequence asc", "sequence desc, time", "SEQUENCE"):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "order_by"):
            listed(admin, order_by=order)


def test_the_ledger_key(admin: Api) -> None:
    """The key that signs checkpoints is public: an Ed25519 key under its own thumbprint."""
    found = call(admin, "ListAuditCheckpoints", pb.ListAuditCheckpointsRequest())
    (key,) = found.ledger_keys
    assert public_key({field.name: value for field, value in key.ListFields()})
    (row,) = listed(admin, filter="kind = ledger_key.created").audit_events
    assert row.subject == key.kid


def test_verification(admin: Api) -> None:
    """The whole ledger, or in stretches, is intact; a head that it once had is led to, another isn't."""
    admin.account()
    whole = verified(admin)
    assert whole.intact
    assert (whole.next_sequence, whole.broken_sequence, whole.problem) == (0, 0, "")
    part = verified(admin, max_rows=2)
    assert (part.intact, part.last_sequence, part.next_sequence, part.verified_rows) == (True, 2, 2, 2)
    rest = verified(admin, after_sequence=2, after_hash=part.last_hash, head_sequence=3, head_hash=b"\1" * 32)
    assert (rest.intact, rest.broken_sequence) == (False, 3)
    assert verified(admin, head_sequence=2, head_hash=part.last_hash).intact
    beyond = verified(admin, head_sequence=10**9, head_hash=part.last_hash)
    assert not beyond.intact
    assert beyond.broken_sequence > whole.last_sequence - 1
    assert str(10**9) in beyond.problem


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"after_sequence": -1}, "after_sequence"),
        ({"after_sequence": 1}, "after_hash"),
        ({"after_hash": b"\1" * 32}, "after_hash"),
        ({"head_sequence": 1, "head_hash": b"\1"}, "head_hash"),
        ({"head_sequence": -5, "head_hash": b"\1" * 32}, "head_sequence"),
        ({"max_rows": -1}, "max_rows"),
    ],
    ids=str,
)
def test_stretches_that_are_none(admin: Api, fields: dict[str, Any], named: str) -> None:
    """What names no stretch is refused by its field."""
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", named):
        verified(admin, **fields)


def denied(api: Api) -> str:
    """A denial's id."""
    with pytest.raises(Refused) as caught:
        call(Api(api.door, api.issuer, "Bearer nonsense"), "ListAuditEvents", pb.ListAuditEventsRequest())
    assert caught.value.denial_id
    return caught.value.denial_id


def explained(api: Api, denial_id: str) -> str:
    return str(call(api, "ExplainDenial", pb.ExplainDenialRequest(denial_id=denial_id)).cause)


def test_a_denial_explained(admin: Api) -> None:
    """The id that came with a refusal opens to the true cause, for an auditor too; nobody else may ask."""
    denial_id = denied(admin)
    cause = explained(admin, denial_id)
    assert cause
    auditor = admin.account("auditor")
    assert explained(admin.bearer(auditor), denial_id) == cause
    with refused("UNAUTHENTICATED", "MISSING_TOKEN"):
        explained(Api(admin.door, admin.issuer), denial_id)


@pytest.mark.parametrize("change", [lambda known: known[:-1], lambda known: "A" * len(known), lambda known: "ü"])
def test_what_is_no_denial_id(admin: Api, change: Callable[[str], str]) -> None:
    """Anything else than an id of this installation is refused alike."""
    with refused("INVALID_ARGUMENT", "BAD_DENIAL_ID", "denial_id"):
        explained(admin, change(denied(admin)))


def test_bytes_over_http_are_base64(service: Installation) -> None:
    """Hashes are base64 in JSON (proto3's mapping); anything else there is refused by its field."""
    with opened("http", service) as door:
        admin = administrator(service, door)
        said = door._http.get("/api/v1/audit-events?page_size=1", headers={"authorization": admin.authorization})  # type: ignore[union-attr]
        assert len(base64.b64decode(said.json()["audit_events"][0]["hash"], validate=True)) == 32
        for wrong in ("***", "AA=A", 5):
            answer = door._http.post(  # type: ignore[union-attr]
                "/api/v1/audit-events/verify",
                headers={"authorization": admin.authorization},
                json={"after_sequence": 1, "after_hash": wrong},
            )
            assert answer.status_code == 400
            assert answer.json()["error"]["violations"][0]["field"] == "after_hash"


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notary that signs at its first turn."""
    monkeypatch.setattr(notary, "ROWS", 2)


def test_a_checkpoint_of_a_running_service(eager: None, alone: Installation, root: Api) -> None:
    """The service signs by itself, on both stores; the checkpoint is listed, logged, and verified with the rows."""
    for _ in range(200):
        found = call(root, "ListAuditCheckpoints", pb.ListAuditCheckpointsRequest()).audit_checkpoints
        if found:
            break
        alone.run(asyncio.sleep(0.05))
    assert found[0].number == 1
    until(lambda: found[0].hash.hex() in alone.log.getvalue(), 10.0, "it is logged")
    answer = verified(root, head_sequence=found[0].sequence, head_hash=found[0].hash)
    assert (answer.intact, answer.verified_checkpoints) == (True, len(found))
