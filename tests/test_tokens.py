"""Grants: what is remembered of a request is what would be found anew, and no more than a bound."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc import tokens
from artstore_grpc.audiences import Audiences
from artstore_grpc.call import Caller
from artstore_grpc.model import Account, Role
from artstore_grpc.tokens import MAX_REMEMBERED_REQUEST, Tokens, of_its_own

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
ACCOUNT = Account("an-id", "sa_dev_a_00000000", 'a "name" of é', Role.USER, NOW, NOW, audiences=("artstore", "b", "c"))


def made() -> Tokens:
    """The rules, over a keyring whose signature is the claims themselves."""
    parts: dict[str, Any] = {
        "store": None,
        "replica": SimpleNamespace(outage=False),
        "keyring": SimpleNamespace(sign=lambda claims: claims.decode()),
        "authenticator": None,
    }
    audiences = Audiences("artstore", "https://issuer.example")
    return Tokens(**parts, audiences=audiences, lifetime=timedelta(minutes=30), now=lambda: NOW)


def claims(rules: Tokens, account: Account, scope: str = "", audience: tuple[str, ...] = ()) -> dict[str, Any]:
    caller = Caller(account, frozenset(account.granted_scopes))
    found: dict[str, Any] = json.loads(rules.issue(caller, scope=scope, audience=audience).text)
    return found


def test_a_changed_account_gets_other_claims() -> None:
    """The same request after any change says what the account is now, and before that what it was."""
    rules = made()
    assert claims(rules, ACCOUNT)["role"] == claims(rules, ACCOUNT)["role"] == "user"
    changed = replace(ACCOUNT, role=Role.READONLY, rate_limit=7, epoch=3, version=2)
    after = claims(rules, changed)
    assert (after["role"], after["rate_limit"], after["epoch"], after["scope"]) == ("readonly", 7, 3, "storage.read")
    assert claims(rules, ACCOUNT)["role"] == "user"


def test_each_request_gets_its_own() -> None:
    """What one asked for is not what another gets."""
    rules = made()
    for _ in range(2):
        assert claims(rules, ACCOUNT, "storage.read")["scope"] == "storage.read"
        assert claims(rules, ACCOUNT)["scope"] == "storage.read storage.write"
        assert claims(rules, ACCOUNT, audience=("b",))["aud"] == "b"
        assert claims(rules, ACCOUNT, audience=("b", "c"))["aud"] == ["b", "c"]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask, and however long they make it: the oldest go, and what is long is never kept."""
    monkeypatch.setattr(tokens, "MAX_GRANTS", 3)
    rules = made()
    for number in range(10):
        claims(rules, replace(ACCOUNT, id=str(number)))
    assert [key[0] for key in rules._grants] == ["7", "8", "9"]
    claims(rules, ACCOUNT, "storage.read " * MAX_REMEMBERED_REQUEST + "storage.read")
    claims(rules, ACCOUNT, audience=("b",) * 20)
    claims(rules, replace(ACCOUNT, audiences=("b" * 255, "artstore")), audience=("b" * 255, "artstore"))
    assert [key[0] for key in rules._grants] == ["8", "9", "an-id"]


@given(issued=st.integers(0, 2**40), lifetime=st.integers(60, 86_400), jti=st.binary(min_size=16, max_size=16))
def test_the_end_of_claims_is_json(issued: int, lifetime: int, jti: bytes) -> None:
    """Whatever the numbers, it goes on an object that was cut before its brace."""
    found = json.loads(b'{"iss":"i"' + of_its_own(issued, lifetime, jti.hex()))
    assert found == {"iss": "i", "iat": issued, "nbf": issued, "exp": issued + lifetime, "jti": jti.hex()}
