"""Nobody creates, widens, restores or resets the credentials of an account that holds a scope they lack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from artstore_grpc.model import ACCOUNTS_READ, ACCOUNTS_WRITE, STORAGE_READ
from tests.api.callers import Api
from tests.api.doors import refused

NARROW = (ACCOUNTS_READ, ACCOUNTS_WRITE, STORAGE_READ)
"""Manages accounts, and holds of the storage's scopes only the reader's."""


@pytest.fixture(params=["token", "account"])
def narrow(request: pytest.FixtureRequest, admin: Api) -> Api:
    """An administrator that was narrowed: once by the scope of its token, once by its account's scopes."""
    if request.param == "token":
        return admin.bearer(admin.account("admin"), scope=" ".join(NARROW))
    return admin.bearer(admin.account("admin", scopes=NARROW))


@pytest.mark.parametrize("role", ["user", "auditor", "admin"])
def test_creation(admin: Api, narrow: Api, role: str) -> None:
    """An account with a scope that the creator lacks is not made."""
    with refused("PERMISSION_DENIED", "SCOPE_NOT_HELD"):
        narrow.create(role)


@pytest.mark.parametrize(("role", "scopes"), [("readonly", []), ("user", [STORAGE_READ]), ("admin", list(NARROW))])
def test_creation_within_bounds(narrow: Api, role: str, scopes: list[str]) -> None:
    """What the creator holds it may hand out, whatever the role that it is cut from."""
    assert narrow.create(role, scopes=scopes).client_secret


@pytest.mark.parametrize(
    "fields", [{"role": "ROLE_USER"}, {"role": "ROLE_ADMIN"}, {"role": "ROLE_USER", "scopes": ["storage.write"]}]
)
def test_widening(admin: Api, narrow: Api, fields: dict[str, Any]) -> None:
    """An account the caller may change is not changed to more than the caller holds."""
    account = narrow.account("readonly")
    with refused("PERMISSION_DENIED", "SCOPE_NOT_HELD"):
        narrow.update(account.id, *fields, **fields)
    assert list(admin.get(account.id).scopes) == [STORAGE_READ]


def test_clearing_scopes_widens(admin: Api, narrow: Api) -> None:
    """No scopes of its own means all of the role's: that is widening too."""
    account = narrow.account("user", scopes=[STORAGE_READ])
    with refused("PERMISSION_DENIED", "SCOPE_NOT_HELD"):
        narrow.update(account.id, "scopes")
    assert list(admin.get(account.id).scopes) == [STORAGE_READ]


@pytest.mark.parametrize("verb", ["rotate", "activate", "undelete", "update", "narrow", "revoke"])
def test_wider_accounts_are_out_of_reach(admin: Api, narrow: Api, verb: str) -> None:
    """Whoever lacks a scope gets, ends or changes nothing of an account that has it, nor brings it back."""
    account = admin.account("user")
    {"activate": admin.suspend, "undelete": admin.delete}.get(verb, admin.get)(account.id)
    before = admin.get(account.id)
    calls = {
        "rotate": lambda: narrow.rotate(account.id),
        "activate": lambda: narrow.activate(account.id),
        "undelete": lambda: narrow.undelete(account.id),
        "update": lambda: narrow.update(account.id, "description", description="changed"),
        "narrow": lambda: narrow.update(account.id, "scopes", scopes=[STORAGE_READ]),
        "revoke": lambda: narrow.revoke_secret(account.id, before.secrets[0].id),
    }
    with refused("PERMISSION_DENIED", "SCOPE_NOT_HELD"):
        calls[verb]()
    assert admin.get(account.id) == before


def test_wider_accounts_may_be_shut_out(admin: Api, narrow: Api) -> None:
    """Suspending and deleting hand nothing out."""
    account = admin.account("user")
    narrow.suspend(account.id)
    narrow.delete(account.id)
    assert admin.get(account.id).HasField("delete_time")


def test_an_account_within_reach(admin: Api, narrow: Api) -> None:
    """Everything is allowed with an account that holds nothing more."""
    account = narrow.account("readonly")
    narrow.update(account.id, "description", description="changed")
    narrow.rotate(account.id)
    narrow.suspend(account.id)
    narrow.activate(account.id)
    narrow.delete(account.id)
    assert narrow.undelete(account.id).description == "changed"


def test_one_does_not_widen_oneself(admin: Api, narrow: Api) -> None:
    """A narrowed administrator's own account is no exception."""
    account = admin.account("admin", scopes=NARROW)
    with refused("PERMISSION_DENIED", "SCOPE_NOT_HELD"):
        admin.bearer(account).update(account.id, "scopes")


def test_a_retry_asks_again_what_the_caller_holds(admin: Api) -> None:
    """An administrator that was narrowed meanwhile gets no kept answer with more than it holds."""
    creator = admin.account("admin")
    request_id = str(uuid4())
    wide = admin.bearer(creator)
    name = f"retried {creator.id}"
    wide.create("user", name=name, request_id=request_id)
    admin.update(creator.id, "scopes", scopes=NARROW)
    with refused("PERMISSION_DENIED", "SCOPE_NOT_HELD"):
        wide.create("user", name=name, request_id=request_id)


def test_tokens_shrink_with_their_account(admin: Api) -> None:
    """A token issued before its account was narrowed has no more than the account has now."""
    account = admin.account("admin")
    caller = admin.bearer(account)
    caller.create("readonly")
    admin.update(account.id, "scopes", scopes=[ACCOUNTS_READ])
    with refused("PERMISSION_DENIED", "INSUFFICIENT_SCOPE"):
        caller.create("readonly")
    assert caller.get(account.id).id == account.id


def test_tokens_do_not_grow_with_their_account(admin: Api) -> None:
    """A token of few scopes stays one when its account is widened."""
    account = admin.account("auditor")
    caller = admin.bearer(account)
    admin.update(account.id, "role", role="ROLE_ADMIN")
    with refused("PERMISSION_DENIED", "INSUFFICIENT_SCOPE"):
        caller.create("readonly")
    assert admin.bearer(account).create("readonly").client_secret


def test_an_administrators_token_for_the_storage_is_no_use_here(admin: Api) -> None:
    """Only a token whose sole audience is the issuer is taken: no storage element can replay an administrator's."""
    account = admin.account("admin")
    for audience in ((), ("artstore",), ("artstore", admin.issuer), (admin.issuer, "artstore")):
        token = admin.token(account, audience=audience)
        with refused("UNAUTHENTICATED", "WRONG_AUDIENCE"):
            replace(admin, authorization=f"Bearer {token}").get(account.id)
