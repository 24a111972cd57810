"""Accounts listed: pages that follow each other, and every filter."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import event as sqlalchemy_event

from artstore_grpc.model import Account, AccountQuery, Comparison, Role, State
from artstore_grpc.store.sql import SqlStore
from tests.store.samples import DAY, NOW, account, add, names, secret


async def test_pages_follow_each_other(store: SqlStore) -> None:
    """Pages walk (create_time, id) without gap or repeat, also through accounts of one and the same time."""
    made = [account(create_time=NOW + timedelta(seconds=number // 3), secrets=(secret(),)) for number in range(10)]
    await add(store, *reversed(made))
    expected = sorted(made, key=lambda one: (one.create_time, one.id))
    seen: list[Account] = []
    after = None
    while page := await store.accounts(AccountQuery(4, after=after), NOW):
        assert len(page) <= 4
        seen += page
        after = (page[-1].create_time, page[-1].id)
    assert seen == expected


async def test_page_counts_accounts_not_secrets(store: SqlStore) -> None:
    """A page's limit is one of accounts, and each has all of its secrets in their order."""
    made = [account(secrets=(secret(), secret(create_time=NOW - DAY))) for _ in range(3)]
    await add(store, *made)
    assert await store.accounts(AccountQuery(2), NOW) == made[:2]


async def test_page_is_one_statement(store: SqlStore) -> None:
    """A page of accounts with secrets takes one statement, however many they are."""
    await add(store, *(account(secrets=(secret(),)) for _ in range(20)))
    statements: list[str] = []
    engine = store._database._engine.sync_engine
    sqlalchemy_event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    assert len(await store.accounts(AccountQuery(20), NOW)) == 20
    assert len(statements) == 1


async def test_deleted_accounts_are_shown_when_asked(store: SqlStore) -> None:
    """A list leaves deleted accounts out unless it is told to show them."""
    await add(store, account(name="kept"), account(name="gone", delete_time=NOW))
    assert await names(store) == ["kept"]
    assert await names(store, show_deleted=True) == ["kept", "gone"]


@pytest.mark.parametrize("operator", ["=", "!="])
@pytest.mark.parametrize("state", list(State))
async def test_state_filter_agrees_with_the_model(store: SqlStore, state: State, operator: str) -> None:
    """SQL and `Account.state` agree on every combination of what a state follows from, at the very instant too."""
    made = [
        account(
            suspended=suspended, delete_time=deleted, secrets=() if expires is None else (secret(expire_time=expires),)
        )
        for suspended in (False, True)
        for deleted in (None, NOW)
        for expires in (None, NOW - DAY, NOW, NOW + timedelta(microseconds=1))
    ]
    await add(store, *made)
    expected = [one.name for one in made if (one.state(NOW) == state) == (operator == "=")]
    assert await names(store, Comparison("state", operator, str(state)), show_deleted=True) == expected


@pytest.mark.parametrize("operator", ["=", "!="])
async def test_role_filter(store: SqlStore, operator: str) -> None:
    """Accounts are found by role, and by not having it."""
    made = [account(role=role) for role in Role]
    await add(store, *made)
    expected = [one.name for one in made if (one.role is Role.ADMIN) == (operator == "=")]
    assert await names(store, Comparison("role", operator, "admin")) == expected


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        (":", "a", ["a%b", "a_b", "axb", "a\\b"]),
        (":", "A", ["AXB"]),
        (":", "%", ["a%b"]),
        (":", "_", ["a_b"]),
        (":", "\\", ["a\\b"]),
        (":", "ü", ["über"]),
        (":", "Ü", []),
        (":", "'", []),
        ("=", "axb", ["axb"]),
        ("=", "aXb", []),
        ("!=", "axb", ["a%b", "a_b", "AXB", "a\\b", "über"]),
    ],
)
async def test_name_filter(store: SqlStore, operator: str, value: str, expected: list[str]) -> None:
    """Names compare case-sensitively in both dialects, and no character is a wildcard."""
    await add(store, *(account(name=name) for name in ("a%b", "a_b", "axb", "AXB", "a\\b", "über")))
    assert await names(store, Comparison("name", operator, value)) == expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [("<", ["early"]), ("<=", ["early", "now"]), (">", ["late"]), (">=", ["now", "late"]), ("=", ["now"])],
)
async def test_expire_time_filter(store: SqlStore, operator: str, expected: list[str]) -> None:
    """The last of the secrets' expire times counts; an account without secrets has none and never matches."""
    times = {"early": NOW - timedelta(microseconds=1), "now": NOW, "late": NOW + timedelta(microseconds=1)}
    for name, time in times.items():
        await add(store, account(name=name, secrets=(secret(expire_time=time), secret(expire_time=NOW - DAY))))
    await add(store, account(name="without"))
    assert await names(store, Comparison("secret_expire_time", operator, NOW)) == expected


async def test_comparisons_are_joined_by_and(store: SqlStore) -> None:
    """An account must satisfy every comparison."""
    await add(store, account(name="one", role=Role.ADMIN), account(name="two", role=Role.ADMIN), account(name="ones"))
    wanted = (Comparison("name", ":", "one"), Comparison("role", "=", "admin"))
    assert await names(store, *wanted) == ["one"]


@pytest.mark.parametrize(
    "comparison",
    [
        Comparison("name", "<", "a"),
        Comparison("role", ":", "admin"),
        Comparison("role", "=", "boss"),
        Comparison("state", "=", "asleep"),
        Comparison("hash", "=", "x"),
        Comparison("secret_expire_time", "=", "soon"),
    ],
)
async def test_unknown_comparisons_are_refused(store: SqlStore, comparison: Comparison) -> None:
    """What the filter's grammar lacks is refused, not ignored."""
    with pytest.raises(ValueError, match=r"cannot be filtered|is not a valid"):
        await names(store, comparison)
