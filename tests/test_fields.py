"""What the fields of an account may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid1, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc import fields
from artstore_grpc.errors import InvalidRequest
from artstore_grpc.model import Environment, Role

ACCEPTED: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (fields.name, ("abc",)),
    (fields.name, ("x" * 200,)),
    (fields.name, ("Größe 大",)),
    (fields.description, ("",)),
    (fields.description, ("x" * 500,)),
    (fields.rate_limit, (1,)),
    (fields.rate_limit, (1_000_000,)),
    (fields.scopes, ((), Role.READONLY)),
    (fields.scopes, (("storage.read",), Role.READONLY)),
    (fields.audiences, ((),)),
    (fields.audiences, (("https://a.example/x", "artstore"),)),
    (fields.overlap, (timedelta(0),)),
    (fields.overlap, (timedelta(days=30),)),
    (fields.request_id, (str(uuid4()),)),
    (fields.account_id, (str(uuid4()),)),
    (fields.account_id, ("sa_dev_x_12345678",)),
]
REFUSED: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (fields.name, ("ab",)),
    (fields.name, ("x" * 201,)),
    (fields.name, (" abc",)),
    (fields.name, ("abc\n",)),
    (fields.name, ("a\0bc",)),
    (fields.description, ("x" * 501,)),
    (fields.description, ("a\0",)),
    (fields.rate_limit, (0,)),
    (fields.rate_limit, (1_000_001,)),
    (fields.rate_limit, (-1,)),
    (fields.scopes, (("storage.write",), Role.READONLY)),
    (fields.scopes, (("unknown",), Role.ADMIN)),
    (fields.audiences, (("",),)),
    (fields.audiences, (("a b",),)),
    (fields.audiences, (("ä",),)),
    (fields.audiences, (("x" * 256,),)),
    (fields.audiences, (tuple(f"a{n}" for n in range(21)),)),
    (fields.overlap, (timedelta(seconds=-1),)),
    (fields.overlap, (timedelta(days=30, seconds=1),)),
    (fields.request_id, ("",)),
    (fields.request_id, ("x",)),
    (fields.request_id, (str(uuid1()),)),
    (fields.request_id, (uuid4().hex,)),
    (fields.account_id, ("",)),
    (fields.account_id, ("x" * 101,)),
    (fields.account_id, ("a\0b",)),
    (fields.account_id, ("ä",)),
]


@pytest.mark.parametrize(("check", "arguments"), ACCEPTED)
def test_values_within_bounds_are_accepted(check: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The bounds themselves are inside."""
    check(*arguments)


@pytest.mark.parametrize(("check", "arguments"), REFUSED)
def test_values_out_of_bounds_are_refused(check: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """One step outside is INVALID_ARGUMENT that names the field and never repeats the value."""
    with pytest.raises(InvalidRequest) as refused:
        check(*arguments)
    assert refused.value.violations


@given(st.text(min_size=3, max_size=200))
def test_a_client_id_has_its_form(name: str) -> None:
    """`sa_<environment>_<name, cleaned, at most 20>_<8 hex>`, whatever the name."""
    assert re.fullmatch(r"sa_prod_[a-z0-9-]{1,20}_[0-9a-f]{8}", fields.client_id(Environment.PROD, name))


def test_what_names_an_account_is_left_as_it_is() -> None:
    """A UUID in upper case too: it may be the client_id of an imported account."""
    named = str(uuid4()).upper()
    assert fields.account_id(named) == named
