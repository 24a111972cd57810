"""The view of what verifiers must know: from ledger rows to messages to a verifier's own state, whatever the order."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from artstore.identity import TrustState
from artstore.identity.v1 import token_service_pb2 as pb
from hypothesis import given, settings
from hypothesis import strategies as st

from artstore_grpc import ledger, trust
from artstore_grpc.errors import OutOfRange
from artstore_grpc.ledger import GENESIS
from artstore_grpc.model import AccountTrust, KeyState, Revocation, SigningKey
from artstore_grpc.records import SYSTEM, Event, EventKind, LedgerRow
from artstore_grpc.rpc.trust_feed import CHUNK, chunks, news_message
from artstore_grpc.trust import Trust
from artstore_grpc.watches import News

START = datetime(2030, 1, 1, tzinfo=UTC)
LATER = (START + timedelta(minutes=30)).isoformat()
ACCOUNTS = ("a", "b", "c")
KIDS = ("k1", "k2", "k3")


def jwk(kid: str) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": f"x-{kid}", "kid": kid, "alg": "EdDSA"}


def created(kid: str) -> tuple[EventKind, str, dict[str, Any]]:
    return EventKind.KEY_CREATED, kid, {"state": "prepared", "public_jwk": jwk(kid)}


ABOUT_ACCOUNTS = (
    EventKind.ACCOUNT_SUSPENDED,
    EventKind.ACCOUNT_ACTIVATED,
    EventKind.ACCOUNT_DELETED,
    EventKind.ACCOUNT_UNDELETED,
    EventKind.ACCOUNT_UPDATED,
    EventKind.SECRET_ROTATED,
)

EVENTS = st.one_of(
    st.tuples(st.sampled_from(ABOUT_ACCOUNTS), st.sampled_from(ACCOUNTS), st.just({})),
    st.tuples(
        st.sampled_from((EventKind.SECRET_ROTATED, EventKind.TOKENS_VOIDED)),
        st.sampled_from(ACCOUNTS),
        st.builds(lambda epoch: {"epoch": epoch}, st.integers(1, 5)),
    ),
    st.builds(
        lambda jti: (EventKind.TOKEN_REVOKED, jti, {"expire_time": LATER, "account_id": ACCOUNTS[int(jti[1]) % 3]}),
        st.sampled_from(("t1", "t2", "t3")),
    ),
    st.builds(created, st.sampled_from(KIDS)),
    st.tuples(
        st.sampled_from((EventKind.KEY_ACTIVATED, EventKind.KEY_RETIRED, EventKind.KEY_REVOKED, EventKind.KEY_PURGED)),
        st.sampled_from(KIDS),
        st.just({}),
    ),
)


def rows(events: Sequence[tuple[EventKind, str, dict[str, Any]]]) -> list[LedgerRow]:
    made: list[LedgerRow] = []
    head = GENESIS
    for kind, subject, detail in events:
        made.append(ledger.append(head, Event(START, SYSTEM, kind, subject, detail)))
        head = (made[-1].sequence, made[-1].hash)
    return made


def applied(made: Sequence[LedgerRow]) -> Trust:
    view = Trust()
    for row in made:
        view.apply(row)
    return view


def take(state: TrustState, message: pb.WatchTrustResponse) -> None:
    """Over the wire, as a client gets it."""
    state.apply(pb.WatchTrustResponse.FromString(message.SerializeToString()))


def follower(view: Trust) -> TrustState:
    state = TrustState()
    for chunk in chunks(view.current()):
        take(state, chunk)
    return state


def caught_up(state: TrustState, view: Trust) -> None:
    view.require(state.sequence, state.hash)
    while state.sequence != view.head[0]:
        upto, changes = view.changes_after(state.sequence)
        assert upto[0] > state.sequence
        take(state, news_message(News(*upto, changes)))


def known(state: TrustState) -> tuple[Any, ...]:
    accounts = {name: (refusal.all, refusal.epoch) for name, refusal in state._accounts.items()}
    return state.sequence, state.hash, sorted(state.keys), dict(state._revoked), accounts


@settings(deadline=None, database=None)
@given(st.lists(EVENTS, max_size=40), st.data())
def test_a_snapshot_and_what_follows_is_all_there_is(events: list[Any], data: st.DataObject) -> None:
    """A verifier that begins at any row, and looks up at any other, ends with what one that was there from the start
    knows, and with what a snapshot of the end says."""
    made = rows(events)
    start = data.draw(st.integers(0, len(made)))
    middle = data.draw(st.integers(start, len(made)))
    view = applied(made[:start])
    late, always = follower(view), follower(Trust())
    for row in made[start:middle]:
        view.apply(row)
    caught_up(late, view)
    for row in made[middle:]:
        view.apply(row)
    caught_up(late, view)
    caught_up(always, view)
    assert known(late) == known(always) == known(follower(view))


@settings(deadline=None, database=None)
@given(st.lists(EVENTS, max_size=40), st.data())
def test_a_verifier_goes_on_at_a_replica_that_started_later(events: list[Any], data: st.DataObject) -> None:
    """A replica that was loaded at some row takes over a verifier of before: nothing is missed, nothing refused that
    is not."""
    made = rows(events)
    was_at, loaded_at = sorted((data.draw(st.integers(0, len(made))), data.draw(st.integers(0, len(made)))))
    verifier = follower(applied(made[:was_at]))
    old, restarted = applied(made[:loaded_at]), Trust()
    restarted.load(
        old.head,
        made[max(0, was_at - 2) : loaded_at],
        keys=[SigningKey(key.kid, "EdDSA", key.jwk or {}, b"", key.state, START) for key in old._keys.values()],
        revocations=[
            Revocation(jti, owner, datetime.fromtimestamp(exp, UTC)) for jti, (exp, owner) in old._revoked.items()
        ],
        accounts=tuple(old._accounts.values()),
    )
    for row in made[loaded_at:]:
        old.apply(row)
        restarted.apply(row)
    caught_up(verifier, restarted)
    always = follower(old)
    # What was void before the restart nobody tells it to forget; it forgets that with its expiry.
    for jti in verifier._revoked.keys() - always._revoked.keys():
        assert always._accounts[ACCOUNTS[int(jti[1]) % 3]].epoch
        del verifier._revoked[jti]
    assert known(verifier) == known(always)


def test_what_is_refused() -> None:
    """Suspended and deleted whatever the epoch, else a lower epoch, else a revoked `jti`; anything else is trusted."""
    token = {"sub": "a", "jti": "t1", "epoch": 1}
    cases: tuple[tuple[list[Any], bool], ...] = (
        ([], False),
        ([(EventKind.ACCOUNT_SUSPENDED, "b", {})], False),
        ([(EventKind.ACCOUNT_SUSPENDED, "a", {})], True),
        ([(EventKind.ACCOUNT_SUSPENDED, "a", {}), (EventKind.ACCOUNT_ACTIVATED, "a", {})], False),
        ([(EventKind.ACCOUNT_DELETED, "a", {}), (EventKind.ACCOUNT_SUSPENDED, "a", {})], True),
        ([(EventKind.ACCOUNT_SUSPENDED, "a", {}), *[(EventKind.ACCOUNT_DELETED, "a", {})] * 2, created("k1")], True),
        ([(EventKind.ACCOUNT_DELETED, "a", {}), (EventKind.ACCOUNT_UNDELETED, "a", {})], False),
        (
            [
                (EventKind.ACCOUNT_SUSPENDED, "a", {}),
                (EventKind.ACCOUNT_DELETED, "a", {}),
                (EventKind.ACCOUNT_UNDELETED, "a", {}),
            ],
            True,
        ),
        ([(EventKind.SECRET_ROTATED, "a", {"epoch": 1})], False),
        ([(EventKind.SECRET_ROTATED, "a", {"epoch": 2})], True),
        ([(EventKind.TOKENS_VOIDED, "a", {"epoch": 2})], True),
        ([(EventKind.TOKEN_REVOKED, "t2", {"expire_time": LATER})], False),
        ([(EventKind.TOKEN_REVOKED, "t1", {"expire_time": LATER})], True),
    )
    for events, refused in cases:
        view = applied(rows(events))
        assert follower(view).refuses(token) is refused, events
        assert view.refuses("a", "t1", 1) is refused, events


def test_no_going_on_from_elsewhere() -> None:
    """A sequence from the future, one of another ledger, and one from longer ago than is kept are out of range."""
    view = applied(rows([created("k1"), (EventKind.ACCOUNT_SUSPENDED, "a", {})]))
    view.require(0, b"")
    view.require(*view.head)
    for place in ((3, b""), (2, bytes(31) + b"x"), (1, view.head[1]), (-1, b"")):
        with pytest.raises(OutOfRange):
            view.require(*place)


def test_rows_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What followers read from is bounded; who fell behind it is told so."""
    monkeypatch.setattr(trust, "KEPT_ROWS", 10)
    view = applied(rows([(EventKind.ACCOUNT_UPDATED, "a", {})] * 25))
    assert len(view._kept) == 10
    assert view.changes_after(15) == (view.head, [])
    with pytest.raises(OutOfRange) as caught:
        view.changes_after(14)
    assert caught.value.reason == "FELL_BEHIND"
    with pytest.raises(OutOfRange):
        view.require(14, b"")


def test_a_snapshot_is_given_again_until_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that comes back at once gets one snapshot, and what has changed since behind it."""
    monkeypatch.setattr(trust, "SNAPSHOT_ROWS", 3)
    made = rows([(EventKind.ACCOUNT_UPDATED, "a", {})] * 5)
    view = applied(made[:1])
    first = view.snapshot()
    for row in made[1:4]:
        view.apply(row)
        assert view.snapshot() is first
    view.apply(made[4])
    assert view.snapshot() is not first


@pytest.mark.parametrize("bound", [1, 3, 10])
def test_changes_are_told_in_parts(monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    """However many there are, a message has so many of them, and those of one row more at most."""
    monkeypatch.setattr(trust, "CHANGES", bound)
    events: list[Any] = [
        (EventKind.TOKEN_REVOKED, f"t{number}", {"expire_time": LATER, "account_id": "a"}) for number in range(20)
    ]
    events += [(EventKind.TOKENS_VOIDED, "a", {"epoch": 1}), created("k1"), (EventKind.ACCOUNT_UPDATED, "a", {})]
    late, view = follower(Trust()), applied(rows(events))
    parts = []
    while late.sequence != view.head[0]:
        upto, changes = view.changes_after(late.sequence)
        parts.append(len(changes))
        take(late, news_message(News(*upto, changes)))
    assert max(parts) == bound
    assert sum(parts) == 22
    assert known(late) == known(follower(view))


def test_a_verifier_keeps_no_message() -> None:
    """Of a change that voids ten thousand tokens it remembers one number, not the message that said so."""
    state, before = TrustState(), resident_bytes()
    for number in range(100):
        message = pb.WatchTrustResponse(sequence=number + 1)
        message.changes.accounts.add(account_id=f"account-{number}", epoch=1)
        message.changes.keys.add(state=pb.KEY_STATE_RETIRED).key.kid = f"kid-{number}"
        message.changes.revoked_tokens.extend(pb.RevokedToken(jti=f"{n:032x}") for n in range(10_000))
        take(state, message)
    assert resident_bytes() - before < 40_000_000
    assert state.refuses({"sub": "account-7", "jti": "x", "epoch": 0})


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_raised_epoch_makes_room() -> None:
    """Revoked tokens that a raised epoch made void are dropped, here and by who follows, and no others; what is voided
    again and again takes no more memory."""

    def revoked(jti: str, owner: str) -> tuple[EventKind, str, dict[str, Any]]:
        return EventKind.TOKEN_REVOKED, jti, {"expire_time": LATER, "account_id": owner}

    events: list[Any] = [revoked("kept", "b")]
    for epoch in range(1, 4):
        events += [revoked(f"{epoch}-{number}", "a") for number in range(50)]
        events.append((EventKind.TOKENS_VOIDED, "a", {"epoch": epoch}))
    made = rows(events)
    view, state = Trust(), follower(Trust())
    for row in made:
        view.apply(row)
        caught_up(state, view)
        assert state.revoked_tokens == len(view._revoked) <= 51
    assert list(view._revoked) == ["kept"]
    assert state.refuses({"sub": "a", "jti": "3-1", "epoch": 2})
    assert state.refuses({"sub": "b", "jti": "kept", "epoch": 0})


def test_what_has_expired_is_forgotten() -> None:
    """Revocations go with their tokens, and half a minute of clocks that differ; a raised epoch goes a day later; what
    is suspended stays."""
    events = [
        (EventKind.TOKEN_REVOKED, "t1", {"expire_time": LATER}),
        (EventKind.TOKENS_VOIDED, "a", {"epoch": 1}),
        (EventKind.ACCOUNT_SUSPENDED, "b", {}),
    ]
    view = applied(rows(events))
    state = follower(view)

    def forget(after: timedelta) -> tuple[bool, int, bool, int]:
        view.forget_expired(START + after)
        state.forget_expired((START + after).timestamp())
        return view.is_revoked("t1"), len(view._accounts), state.revoked_tokens == 1, len(state._accounts)

    assert forget(timedelta(minutes=30, seconds=29)) == (True, 2, True, 2)
    assert forget(timedelta(minutes=30, seconds=30)) == (False, 2, False, 2)
    assert forget(timedelta(days=1, minutes=6)) == (False, 1, False, 2)  # known to it for half an hour less
    assert forget(timedelta(days=1, minutes=36)) == (False, 1, False, 1)
    assert list(view._accounts.values()) == [AccountTrust("b", suspended=True)]
    assert view._jtis == {}


def test_chunks_are_small_and_whole() -> None:
    """No chunk exceeds 256 KiB, and a snapshot that lost one is noticed and takes no effect."""
    view = Trust()
    view._revoked = {f"{number:032x}": (1893456000, "a") for number in range(3 * CHUNK)}
    view._accounts = {f"{number:036x}": AccountTrust(f"{number:036x}", suspended=True) for number in range(CHUNK + 1)}
    view._keys = {"k1": trust.TrustedKey("k1", KeyState.ACTIVE, jwk("k1"))}
    made = list(chunks(view.current()))
    assert max(chunk.ByteSize() for chunk in made) <= 256 * 1024
    assert [chunk.snapshot.last for chunk in made] == [False] * (len(made) - 1) + [True]
    state = TrustState()
    take(state, made[0])
    assert not state.keys
    with pytest.raises(ValueError, match="chunk is missing"):
        take(state, made[2])
    whole = follower(view)
    assert (whole.revoked_tokens, len(whole._accounts), list(whole.keys)) == (3 * CHUNK, CHUNK + 1, ["k1"])
