"""The ledger's arithmetic: what is hashed, how rows follow, what verification finds."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc.ledger import GENESIS, Head, LedgerBroken, append, canonical, row_hash, verify
from artstore_grpc.records import LedgerRow
from tests.store.samples import NOW, event

TEXT = st.text(max_size=20)


def chain(length: int, head: Head = GENESIS) -> list[LedgerRow]:
    rows = []
    for number in range(length):
        row = append(head, event(f"subject {number}", detail={"number": number}))
        rows.append(row)
        head = (row.sequence, row.hash)
    return rows


def test_known_row() -> None:
    """The format is fixed: these bytes, written out by hand, are what is hashed."""
    row = append(GENESIS, event("s", actor="a", detail={"b": 1, "a": "ü"}))
    fields = [
        b"artstore-ledger-1",
        (1).to_bytes(8, "big"),
        (1893553445678901).to_bytes(8, "big"),
        b"a",
        b"account.updated",
        b"s",
        b'{"a":"\\u00fc","b":1}',
        bytes(32),
    ]
    expected = hashlib.sha256(b"".join(len(field).to_bytes(8, "big") + field for field in fields)).digest()
    assert (row.hash, row.previous_hash, row.sequence) == (expected, bytes(32), 1)


def test_time_zone_does_not_matter() -> None:
    """The same instant, said in another zone, has the same hash."""
    there = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert append(GENESIS, event(time=there)).hash == append(GENESIS, event(time=NOW)).hash


def test_naive_time_is_refused() -> None:
    """A time without a zone is no instant and is not recorded."""
    with pytest.raises(ValueError, match="aware"):
        append(GENESIS, event(time=datetime(2030, 1, 1)))


def test_detail_order_does_not_matter() -> None:
    """Equal details have one text, whatever the order they were put together in."""
    assert canonical({"b": {"d": 1, "c": 2}, "a": []}) == canonical({"a": [], "b": {"c": 2, "d": 1}})


@pytest.mark.parametrize(("detail", "error"), [({"x": float("nan")}, ValueError), ({"x": object()}, TypeError)])
def test_detail_must_be_json(detail: dict[str, object], error: type[Exception]) -> None:
    """A detail that JSON cannot say is refused, not approximated."""
    with pytest.raises(error):
        canonical(detail)


def test_empty_ledger_verifies() -> None:
    """No rows lead nowhere: the head stays."""
    assert verify([]) == GENESIS


def test_pages_verify_one_after_the_other() -> None:
    """A chain may be verified in pages: the head of one is the start of the next."""
    rows = chain(7)
    assert verify(rows[3:], verify(rows[:3])) == (7, rows[-1].hash)


def test_page_with_wrong_start_is_broken() -> None:
    """A page that does not follow from the given head is named by its first row."""
    with pytest.raises(LedgerBroken) as broken:
        verify(chain(7)[3:], (3, b"\x01" * 32))
    assert broken.value.sequence == 4


@pytest.mark.parametrize(
    "change",
    [
        {"time": NOW + timedelta(microseconds=1)},
        {"actor": "other"},
        {"kind": "account.deleted"},
        {"subject": "other"},
        {"detail": '{"number": 2}'},
        {"previous_hash": b"\x01" * 32},
        {"hash": b"\x01" * 32},
        {"sequence": 9},
    ],
    ids=lambda change: next(iter(change)),
)
def test_altered_row_is_named(change: dict[str, object]) -> None:
    """Any field that was altered is found, and the row is named."""
    rows = chain(5)
    rows[2] = replace(rows[2], **change)
    with pytest.raises(LedgerBroken) as broken:
        verify(rows)
    assert broken.value.sequence == 3


def test_rewritten_row_breaks_the_next() -> None:
    """Who alters a row and makes its hash anew breaks the row after it."""
    rows = chain(5)
    forged = replace(rows[2], actor="other")
    rows[2] = replace(forged, hash=row_hash(forged))
    with pytest.raises(LedgerBroken) as broken:
        verify(rows)
    assert broken.value.sequence == 4


@pytest.mark.parametrize("order", [[0, 1, 3, 4], [0, 1, 1, 2], [0, 2, 1, 3], [1, 2, 3]])
def test_missing_repeated_and_swapped_rows_are_found(order: list[int]) -> None:
    """A row that is missing, repeated or out of order breaks the chain."""
    rows = chain(5)
    with pytest.raises(LedgerBroken):
        verify([rows[index] for index in order])


@given(TEXT, TEXT, TEXT, TEXT)
def test_fields_do_not_run_into_each_other(actor: str, subject: str, other_actor: str, other_subject: str) -> None:
    """Two rows have one hash only if each of their fields is the same."""
    one = append(GENESIS, event(subject, actor=actor)).hash
    two = append(GENESIS, event(other_subject, actor=other_actor)).hash
    assert (one == two) == ((actor, subject) == (other_actor, other_subject))
