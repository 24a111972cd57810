"""CreateServiceAccount over every door: defaults, every field, every bound."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb

from artstore_grpc.model import ROLE_SCOPES, SCOPES, SECRET_LIFETIME, Role
from artstore_grpc.secrets import secret_id
from tests.api.callers import Api, unique
from tests.api.doors import refused

CLIENT_ID = re.compile(r"sa_dev_[a-z0-9-]{1,20}_[0-9a-f]{8}")

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("name", {"name": ""}),
    ("name", {"name": "ab"}),
    ("name", {"name": "x" * 201}),
    ("name", {"name": " abc"}),
    ("name", {"name": "abc "}),
    ("name", {"name": "a\nbc"}),
    ("name", {"name": "a\u2028bc"}),
    ("description", {"description": "x" * 501}),
    ("rate_limit", {"rate_limit": -1}),
    ("rate_limit", {"rate_limit": 1_000_001}),
    ("rate_limit", {"rate_limit": 2**31 - 1}),
    ("scopes", {"scopes": ["storage.none"]}),
    ("scopes", {"scopes": ["storage.read", "identity.accounts.write"]}),
    ("scopes", {"scopes": [""]}),
    ("scopes", {"scopes": ["STORAGE.READ"]}),
    ("audiences", {"audiences": [f"a{number}" for number in range(21)]}),
    ("audiences", {"audiences": [""]}),
    ("audiences", {"audiences": ["with space"]}),
    ("audiences", {"audiences": ["x" * 256]}),
    ("audiences", {"audiences": ["ümlaut"]}),
    ("served_audiences", {"served_audiences": [f"a{number}" for number in range(21)]}),
    ("served_audiences", {"served_audiences": ["tab\there"]}),
    ("served_audiences", {"served_audiences": ["x" * 256]}),
]

ACCEPTED: list[dict[str, Any]] = [
    {"description": "x" * 500},
    {"description": "two\nlines, ünïcode \U0001f512"},
    {"rate_limit": 1},
    {"rate_limit": 1_000_000},
    {"scopes": ["storage.read"]},
    {"audiences": [f"a{number}" for number in range(20)]},
    {"audiences": ["x" * 255]},
    {"audiences": ["https://storage.example/files?x=1"]},
    {"served_audiences": [f"a{number}" for number in range(20)]},
    {"introspection_only": True},
]


def characters(count: int) -> str:
    """A name of so many characters that no other test has."""
    number = uuid4().int
    return "".join(chr(0x4E00 + (number >> (12 * place % 120)) % 4096) for place in range(count))


def test_defaults(admin: Api) -> None:
    """A name and a role are enough; the rest is as the protos say."""
    made = admin.create("user", name=(name := unique()))
    account = made.service_account
    assert (account.name, account.role, account.state) == (name, pb.ROLE_USER, pb.STATE_ACTIVE)
    assert (account.rate_limit, account.description, account.is_system) == (100, "", False)
    assert (list(account.served_audiences), account.introspection_only) == ([], False)
    assert (list(account.scopes), list(account.audiences)) == (["storage.read", "storage.write"], ["artstore"])
    assert account.etag
    assert not account.HasField("delete_time")
    assert not account.HasField("purge_time")
    assert account.create_time == account.update_time


def test_the_first_secret(admin: Api) -> None:
    """It is of our form, listed by its id without its text, and expires after 90 days."""
    made = admin.create()
    (listed,) = made.service_account.secrets
    assert listed.id == secret_id(made.client_secret)
    lifetime = listed.expire_time.ToDatetime() - listed.create_time.ToDatetime()
    assert lifetime == SECRET_LIFETIME == timedelta(days=90)
    assert made.service_account.secret_expire_time == listed.expire_time
    assert not listed.HasField("last_used_time")
    assert made.client_secret not in str(admin.get(made.service_account.id))


def test_every_field_comes_back(admin: Api) -> None:
    """What was asked for is what is answered, and what is read afterwards."""
    fields: dict[str, Any] = {
        "name": unique("Ärger & Söhne"),
        "description": "Ingests.\nAt night.",
        "rate_limit": 12_345,
        "scopes": ["storage.read", "identity.audit.read"],
        "audiences": ["https://files.example", "artstore"],
        "served_audiences": ["https://files.example"],
        "introspection_only": True,
    }
    made = admin.create("admin", **fields).service_account
    for account in (made, admin.get(made.id)):
        for name, value in fields.items():
            found = getattr(account, name)
            assert (list(found) if isinstance(value, list) else found) == value, name
    assert made == admin.get(made.id)


@pytest.mark.parametrize(("field", "fields"), REFUSED, ids=lambda value: str(value)[:30])
def test_out_of_bounds(admin: Api, field: str, fields: dict[str, Any]) -> None:
    """Every bound refuses what is beyond it, and names the one field at fault."""
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", field) as caught:
        admin.create("user", **fields)
    values = [str(item) for value in fields.values() for item in (value if isinstance(value, list) else [value])]
    assert not any(value in caught.value.message for value in values if len(value) > 2), "values are never said back"


@pytest.mark.parametrize("fields", ACCEPTED, ids=lambda value: str(value)[:30])
def test_at_the_bounds(admin: Api, fields: dict[str, Any]) -> None:
    """Every bound admits what is just within it."""
    account = admin.create("user", **fields).service_account
    for name, value in fields.items():
        found = getattr(account, name)
        assert (list(found) if isinstance(value, list) else found) == value


@pytest.mark.parametrize("count", [3, 200])
def test_names_count_characters(admin: Api, count: int) -> None:
    """A name's bounds are in characters, not in bytes."""
    assert len(admin.create(name=characters(count)).service_account.name) == count


def test_a_nul_is_refused(admin: Api) -> None:
    """A NUL, which PostgreSQL can't store, is a malformed request at every door."""
    for field in ("name", "description"):
        with refused("INVALID_ARGUMENT") as caught:
            admin.create(**{field: "a\0bc"})
        assert caught.value.fields[0].endswith(field)


def test_a_role_is_required(admin: Api) -> None:
    """An account without a role has no scopes to be bounded by."""
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "role"):
        admin.create("")


def test_an_account_is_required(grpc_admin: Api) -> None:
    """An empty request names what is missing (over HTTP the body is the account, and can't be)."""
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "service_account"):
        grpc_admin.door.call("CreateServiceAccount", pb.CreateServiceAccountRequest(), grpc_admin.authorization)


def test_an_unknown_role(grpc_admin: Api) -> None:
    """A number that no role has is refused (over HTTP there is no way to say one)."""
    request = pb.CreateServiceAccountRequest(service_account=pb.ServiceAccount(name=unique(), role=99))  # type: ignore[arg-type]
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "role"):
        grpc_admin.door.call("CreateServiceAccount", request, grpc_admin.authorization)


@pytest.mark.parametrize("role", Role)
def test_roles_are_presets(admin: Api, role: Role) -> None:
    """Without scopes of its own an account has all of its role's, and administrators and auditors the issuer too."""
    account = admin.create(role.value).service_account
    assert tuple(account.scopes) == ROLE_SCOPES[role]
    both = role in (Role.ADMIN, Role.AUDITOR)
    assert list(account.audiences) == (["artstore", admin.issuer] if both else ["artstore"])


def test_scopes_have_one_order(admin: Api) -> None:
    """Scopes come back in their fixed order, once each, however they were sent."""
    account = admin.create("admin", scopes=[*reversed(SCOPES), SCOPES[0]]).service_account
    assert tuple(account.scopes) == SCOPES


def test_output_only_fields_are_ignored(admin: Api) -> None:
    """Who creates decides neither ids nor states nor what is part of the installation (AIP-203)."""
    asked = {"id": str(uuid4()), "client_id": "sa_dev_mine_00000000", "state": "STATE_DELETED", "is_system": True}
    account = admin.create(**asked).service_account
    assert account.id != asked["id"]
    assert account.client_id != asked["client_id"]
    assert (account.state, account.is_system) == (pb.STATE_ACTIVE, False)


@pytest.mark.parametrize(
    ("name", "cleaned"), [("Ärger & Söhne", "arger-sohne"), ("UPPER", "upper"), ("日本語", ""), ("a" * 50, "a" * 20)]
)
def test_client_ids(admin: Api, name: str, cleaned: str) -> None:
    """`sa_<environment>_<name, cleaned, at most 20>_<8 hex>`."""
    client_id = admin.create(name=unique(name)).service_account.client_id
    assert CLIENT_ID.fullmatch(client_id)
    assert client_id.split("_")[2].startswith(cleaned)


def test_a_name_is_unique(admin: Api) -> None:
    """A second account of one name is refused, also while the first is deleted."""
    first = admin.account(name=unique())
    for _ in range(2):
        with refused("ALREADY_EXISTS", "NAME_TAKEN"):
            admin.create(name=first.message.name)
        if admin.get(first.id).state == pb.STATE_ACTIVE:
            admin.delete(first.id)
