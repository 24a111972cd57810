"""GetServiceAccount and ListServiceAccounts over every door: who is found, pages, filters."""

from __future__ import annotations

from itertools import chain
from uuid import uuid4

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb

from artstore_grpc import pages
from artstore_grpc.model import SECRET_LIFETIME
from tests.api.callers import Api, unique
from tests.api.conftest import administrator, first_account
from tests.api.doors import GrpcDoor, refused
from tests.installation import Account, Installation


def names(accounts: list[pb.ServiceAccount]) -> list[str]:
    return [account.name for account in accounts]


def of(word: str) -> str:
    """The filter of the accounts that one test made."""
    return f'name : "{word}"'


def made(admin: Api, count: int) -> tuple[str, list[Account]]:
    """So many accounts, and the word that their names share."""
    word = uuid4().hex[:12]
    return word, [admin.account(name=f"{word} {number}") for number in range(count)]


def test_both_ids_name_an_account(admin: Api) -> None:
    """An account is read by its id and by its client_id."""
    account = admin.account()
    assert admin.get(account.id) == admin.get(account.client_id) == account.message


@pytest.mark.parametrize(
    "id", ["00000000-0000-4000-8000-000000000000", "sa_dev_nobody_00000000", "%2F..%2F", "administrator"]
)
def test_nobody(admin: Api, id: str) -> None:
    """What names no account is NOT_FOUND."""
    with refused("NOT_FOUND", "NOT_FOUND"):
        admin.get(id)


@pytest.mark.parametrize("id", ["x" * 101, "ünïcode", "a\nb"])
def test_what_no_account_can_be_named(admin: Api, id: str) -> None:
    """An id out of bounds is refused before it is looked up."""
    with refused("INVALID_ARGUMENT"):
        admin.get(id)


def test_pages(admin: Api) -> None:
    """Every account is on exactly one page, in the order they were created, while others are being created."""
    word, accounts = made(admin, 7)
    found: list[list[str]] = []
    token = ""
    while True:
        page = admin.list(page_size=3, page_token=token, filter=of(word))
        found.append(names(list(page.service_accounts)))
        if len(found) < 3:
            admin.create(name=f"{word} later {len(found)}")
        token = page.next_page_token
        if not token:
            break
    assert [len(page) for page in found] == [3, 3, 3]
    assert list(chain(*found))[:7] == [account.message.name for account in accounts]
    assert list(chain(*found))[7:] == [f"{word} later 1", f"{word} later 2"]


def test_the_last_page_has_no_token(admin: Api) -> None:
    """A list that ends exactly with a page has no further one."""
    word, _ = made(admin, 4)
    assert [len(page) for page in admin.pages(page_size=2, filter=of(word))] == [2, 2]


def test_pages_pass_over_what_is_deleted_meanwhile(admin: Api) -> None:
    """An account that is deleted between two pages shifts nothing: no other is doubled or lost."""
    word, accounts = made(admin, 6)
    first = admin.list(page_size=3, filter=of(word))
    admin.delete(accounts[1].id)
    second = admin.list(page_size=3, page_token=first.next_page_token, filter=of(word))
    assert names(list(second.service_accounts)) == [account.message.name for account in accounts[3:]]


def test_page_sizes(admin: Api) -> None:
    """0 is 50, more than 1,000 is taken for 1,000, and a negative size is refused."""
    word, _ = made(admin, 51)
    assert [len(page) for page in admin.pages(filter=of(word))] == [50, 1]
    assert [len(page) for page in admin.pages(page_size=2**31 - 1, filter=of(word))] == [51]
    assert pages.size(1001) == pages.size(10**9) == 1000
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "page_size"):
        admin.list(page_size=-1)


def test_page_tokens_of_other_queries(admin: Api) -> None:
    """A page token goes on only with the query it came from (AIP-158)."""
    word, _ = made(admin, 3)
    token = admin.list(page_size=1, filter=of(word)).next_page_token
    for other in ({"filter": f"{of(word)} "}, {"filter": ""}, {"filter": of(word), "show_deleted": True}):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            admin.list(page_size=1, page_token=token, **other)
    assert len(admin.list(page_size=2, page_token=token, filter=of(word)).service_accounts) == 2


def test_page_tokens_that_are_none(admin: Api) -> None:
    """Garbage, a cut-off token, a changed one and an overlong one are refused alike."""
    word, _ = made(admin, 2)
    token = admin.list(page_size=1, filter=of(word)).next_page_token
    changed = ("A" if token[20] != "A" else "B").join((token[:20], token[21:]))
    for wrong in ("garbage", "=", "ünïcode", token[:-1], token[:20], token + "AAAA", changed, "A" * 501):
        with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token"):
            admin.list(page_size=1, page_token=wrong, filter=of(word))


def test_deleted_accounts_are_listed_on_demand(admin: Api) -> None:
    """A deleted account is left out of lists, unless they ask for it (AIP-164)."""
    word, accounts = made(admin, 2)
    admin.delete(accounts[0].id)
    assert names(admin.pages(filter=of(word))[0]) == [accounts[1].message.name]
    assert names(admin.pages(filter=of(word), show_deleted=True)[0]) == [a.message.name for a in accounts]
    only = admin.pages(filter=f"{of(word)} AND state = deleted", show_deleted=True)[0]
    assert names(only) == [accounts[0].message.name]


def test_filters_on_role_and_state(admin: Api) -> None:
    """`role` and `state` compare by = and !=, by their short names and by the wire's."""
    word = uuid4().hex[:12]
    for role in ("user", "auditor", "readonly"):
        admin.create(role, name=f"{word} {role}")
    suspended = admin.account("user", name=f"{word} suspended")
    admin.suspend(suspended.id)
    cases = {
        "role = user": ["user", "suspended"],
        "role != user": ["auditor", "readonly"],
        "role = ROLE_AUDITOR": ["auditor"],
        "state = suspended": ["suspended"],
        "state != STATE_SUSPENDED": ["user", "auditor", "readonly"],
        "role = user AND state = active": ["user"],
        "role = admin": [],
        "state = expired": [],
    }
    for asked, expected in cases.items():
        found = names(admin.pages(filter=f"{of(word)} AND {asked}")[0])
        assert found == [f"{word} {name}" for name in expected], asked


def test_filters_on_names(admin: Api) -> None:
    """`name` compares whole by = and !=, in part by `:`, to the letter: no wildcards, no folding of case."""
    word = uuid4().hex[:12]
    for name in ("One%", "one", 'quo"te', "back\\slash"):
        admin.create(name=f"{word} {name}")
    cases = {
        f'name = "{word} one"': ["one"],
        f'{of(word)} AND name != "{word} one"': ["One%", 'quo"te', "back\\slash"],
        f'{of(word)} AND name : "%"': ["One%"],
        f'{of(word)} AND name : "On"': ["One%"],
        f'{of(word)} AND name : "quo\\"te"': ['quo"te'],
        f'{of(word)} AND name : "\\\\"': ["back\\slash"],
        f'{of(word)} AND name : "_"': [],
    }
    for asked, expected in cases.items():
        assert names(admin.pages(filter=asked)[0]) == [f"{word} {name}" for name in expected], asked


def test_filters_on_expiry(admin: Api) -> None:
    """`secret_expire_time` compares with a moment, whatever offset it is said in."""
    account = admin.account(name=unique())
    moment = account.message.secret_expire_time.ToJsonString()
    for operator, count in (("<", 0), ("<=", 1), (">", 0), (">=", 1)):
        asked = f'name = "{account.message.name}" AND secret_expire_time {operator} "{moment}"'
        assert len(admin.pages(filter=asked)[0]) == count, operator
    distant = 'secret_expire_time < "2001-01-01T00:00:00+02:00"'
    assert not admin.pages(filter=f"{of(account.message.name)} AND {distant}")[0]


@pytest.mark.parametrize(
    "filter",
    [
        "role",
        "role =",
        "role = nobody",
        "state > active",
        "nope = 1",
        "name : a OR name : b",
        "secret_expire_time = 1",
        "name = 'x'",
        "(role = user)",
        "secret_expire_time < tomorrow",
        "role = user role = user",
        "x" * 1001,
    ],
    ids=lambda value: value[:40],
)
def test_filters_that_cannot_be_read(admin: Api, filter: str) -> None:
    """A filter beyond the grammar is refused by name."""
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "filter"):
        admin.list(filter=filter)


def test_expired_accounts_are_found(alone: Installation) -> None:
    """`state = expired` finds who is out of secrets, on both stores."""
    door = GrpcDoor(str(alone.started.grpc_address))
    root = administrator(alone, door)
    old = root.account()
    alone.clock.advance(SECRET_LIFETIME / 2)
    renewed = Api(door, alone.issuer).basic(first_account(alone)).rotated(first_account(alone))
    young = Api(door, alone.issuer).bearer(renewed).account()
    alone.clock.advance(SECRET_LIFETIME / 2)
    root = Api(door, alone.issuer).bearer(renewed)
    assert names(root.pages(filter="state = expired")[0]) == [old.message.name]
    assert young.message.name in names(root.pages(filter="state = active")[0])
    assert root.get(old.id).state == pb.STATE_EXPIRED
    door.close()
