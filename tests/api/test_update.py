"""UpdateServiceAccount over every door: masks (AIP-134), etags (AIP-154), what may change and what may not."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.field_mask_pb2 import FieldMask

from tests.api.callers import Api, unique
from tests.api.doors import refused
from tests.api.test_create import ACCEPTED, REFUSED

NEW: dict[str, Any] = {
    "description": "changed",
    "role": "ROLE_ADMIN",
    "rate_limit": 7,
    "scopes": ["storage.write"],
    "audiences": ["https://other.example"],
    "served_audiences": ["https://served.example"],
    "introspection_only": True,
}


def value(account: pb.ServiceAccount, name: str) -> Any:
    found = getattr(account, name)
    if name == "role":
        return pb.Role.Name(found)
    return list(found) if name in ("scopes", "audiences", "served_audiences") else found


def but(account: pb.ServiceAccount, *names: str) -> pb.ServiceAccount:
    """The account without some fields, and without those that every change touches."""
    copy = pb.ServiceAccount()
    copy.CopyFrom(account)
    for name in (*names, "etag", "update_time"):
        copy.ClearField(name)  # type: ignore[arg-type]
    return copy


@pytest.mark.parametrize("name", NEW)
def test_a_mask_changes_what_it_names_alone(admin: Api, name: str) -> None:
    """Of all the fields that were sent only the named one changes."""
    before = admin.account(description="before").message
    after = admin.update(before.id, name, **NEW)
    assert value(after, name) == NEW[name]
    derived = ("scopes", "audiences") if name == "role" else ()
    assert but(after, name, *derived) == but(before, name, *derived)
    assert admin.get(before.id) == after


def test_a_mask_names_several(admin: Api) -> None:
    """All named fields change at once."""
    after = admin.update(admin.account().id, *NEW, **NEW)
    assert {name: value(after, name) for name in NEW} == NEW


def test_a_name_changes_and_the_client_id_stays(admin: Api) -> None:
    """Renaming an account keeps what it authenticates with."""
    account = admin.account()
    after = admin.update(account.id, "name", name=(name := unique("renamed")))
    assert (after.name, after.client_id) == (name, account.client_id)
    assert admin.token(account)


def test_a_mask_resets_what_is_not_sent(admin: Api) -> None:
    """A field that is named and not sent goes back to its default (AIP-134)."""
    names = ("description", "rate_limit", "scopes", "audiences", "served_audiences", "introspection_only")
    account = admin.account("admin", **{name: NEW[name] for name in names})
    after = admin.update(account.id, *names)
    assert (after.description, after.rate_limit, after.introspection_only) == ("", 100, False)
    assert list(after.served_audiences) == []
    assert list(after.audiences) == ["artstore", admin.issuer]
    assert len(after.scopes) == 6


def test_a_star_replaces_everything(admin: Api) -> None:
    """`*` sets every field that can change; those not sent go back to their defaults."""
    account = admin.account(description="before", rate_limit=7, audiences=["https://other.example"])
    after = admin.update(account.id, "*", name=account.message.name, role="ROLE_READONLY")
    assert (after.description, after.rate_limit, after.role) == ("", 100, pb.ROLE_READONLY)
    assert (list(after.audiences), list(after.scopes)) == (["artstore"], ["storage.read"])


def test_a_star_needs_what_is_required(admin: Api) -> None:
    """`*` without a name or without a role would take them away."""
    account = admin.account()
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "name"):
        admin.update(account.id, "*", role="ROLE_USER")
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "role"):
        admin.update(account.id, "*", name=account.message.name)
    assert admin.get(account.id) == account.message


def test_no_mask_changes_what_is_set(admin: Api) -> None:
    """Without a mask the fields that are set change, and no other (AIP-134)."""
    before = admin.account(description="before", rate_limit=9).message
    after = admin.update(before.id, rate_limit=10)
    assert (after.rate_limit, after.description, after.name) == (10, "before", before.name)


def test_nothing_to_change_is_refused(admin: Api) -> None:
    """No mask and no field, or only fields that no change can touch."""
    account = admin.account()
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "update_mask"):
        admin.update(account.id)
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "update_mask"):
        admin.update(account.id, state="STATE_SUSPENDED")


@pytest.mark.parametrize(
    "paths",
    [
        ["nope"],
        ["state"],
        ["id"],
        ["client_id"],
        ["is_system"],
        ["secrets"],
        ["secrets.id"],
        ["etag"],
        ["create_time"],
        ["service_account.name"],
        ["*", "name"],
        ["name", "nope"],
    ],
    ids=",".join,
)
def test_masks_that_name_what_cannot_change(admin: Api, paths: list[str]) -> None:
    """Unknown paths, output-only ones and `*` beside another are refused, and nothing changes."""
    account = admin.account()
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "update_mask"):
        admin.update(account.id, *paths, name=unique(), description="changed")
    assert admin.get(account.id) == account.message


@pytest.mark.parametrize(("field", "fields"), REFUSED, ids=lambda value: str(value)[:30])
def test_bounds_hold_for_updates(admin: Api, field: str, fields: dict[str, Any]) -> None:
    """What can't be created can't be changed to."""
    account = admin.account()
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", field):
        admin.update(account.id, *fields, **fields)
    assert admin.get(account.id) == account.message


@pytest.mark.parametrize("fields", ACCEPTED, ids=lambda value: str(value)[:30])
def test_at_the_bounds(admin: Api, fields: dict[str, Any]) -> None:
    """What can be created can be changed to."""
    after = admin.update(admin.account().id, *fields, **fields)
    assert {name: value(after, name) for name in fields} == fields


def test_a_role_brings_its_scopes(admin: Api) -> None:
    """An account without scopes of its own follows its role; its tokens do too."""
    account = admin.account("readonly")
    after = admin.update(account.id, "role", role="ROLE_USER")
    assert list(after.scopes) == ["storage.read", "storage.write"]
    assert admin.issue(account).scope == "storage.read storage.write"


def test_a_role_must_have_the_scopes(admin: Api) -> None:
    """A role that lacks one of the account's own scopes is refused; sent together with fitting scopes it is not."""
    account = admin.account("user", scopes=["storage.read", "storage.write"])
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "scopes"):
        admin.update(account.id, "role", role="ROLE_READONLY")
    after = admin.update(account.id, "role", "scopes", role="ROLE_READONLY", scopes=["storage.read"])
    assert list(after.scopes) == ["storage.read"]


def test_a_name_that_is_taken(admin: Api) -> None:
    """Two accounts never have one name; an account's own is no conflict."""
    first, second = admin.account(), admin.account()
    with refused("ALREADY_EXISTS", "NAME_TAKEN"):
        admin.update(second.id, "name", name=first.message.name)
    assert admin.update(second.id, "name", name=second.message.name).name == second.message.name


def test_the_etag_guards_a_change(admin: Api) -> None:
    """The present etag passes once; after that it is stale, and the change is not made."""
    account = admin.account()
    etag = account.message.etag
    after = admin.update(account.id, "description", description="first", etag=etag)
    assert after.etag != etag
    with refused("ABORTED", "ETAG_MISMATCH"):
        admin.update(account.id, "description", description="second", etag=etag)
    assert admin.get(account.id).description == "first"


def test_an_etag_of_another_account(admin: Api) -> None:
    """Etags differ between accounts, also those of the same age."""
    account, other = admin.account(), admin.account()
    for etag in (other.message.etag, "garbage", account.message.etag[:-1]):
        with refused("ABORTED", "ETAG_MISMATCH"):
            admin.update(account.id, "description", description="changed", etag=etag)


def test_both_ids_name_what_to_change(admin: Api) -> None:
    """The client_id names an account here too."""
    account = admin.account()
    assert admin.update(account.client_id, "description", description="changed").id == account.id


def test_what_cannot_be_found(admin: Api) -> None:
    """Nobody's id is NOT_FOUND, a deleted account FAILED_PRECONDITION."""
    with refused("NOT_FOUND", "NOT_FOUND"):
        admin.update(str(uuid4()), "description", description="changed")
    account = admin.account()
    admin.delete(account.id)
    with refused("FAILED_PRECONDITION", "ACCOUNT_DELETED"):
        admin.update(account.id, "description", description="changed")


def test_an_empty_request(grpc_admin: Api) -> None:
    """Without an account, or an account without an id, there is nothing to change (over HTTP the path has one)."""
    request = pb.UpdateServiceAccountRequest(update_mask=FieldMask(paths=["name"]))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "service_account"):
        grpc_admin.door.call("UpdateServiceAccount", request, grpc_admin.authorization)
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "id"):
        grpc_admin.update("", "description", description="changed")


def test_changes_reach_the_next_token(admin: Api) -> None:
    """A token says what the account is at that moment."""
    account = admin.account(audiences=["https://a.example"])
    admin.token(account)
    admin.update(account.id, "audiences", audiences=["https://b.example"])
    assert admin.introspect(account, admin.token(account)).aud == ["https://b.example"]
