"""KeyService as its callers see it, over every door: what a key looks like, what is refused and how, the emergency."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
import pytest
from artstore.identity.v1 import key_service_pb2 as pb
from artstore.identity.v1.token_service_pb2 import KEY_STATE_ACTIVE, KEY_STATE_PREPARED, KEY_STATE_REVOKED

from tests.api.callers import Api
from tests.api.conftest import Fresh, administrator, first_account
from tests.api.doors import DOORS, opened, refused
from tests.processes.service import until


def keys(api: Api) -> dict[str, Any]:
    """Every key by its `kid`."""
    answer = api.door.call("ListSigningKeys", pb.ListSigningKeysRequest(), api.authorization)
    return {key.kid: key for key in answer.signing_keys}


def asked(api: Api, verb: str, **fields: Any) -> Any:
    """The answer of `<Verb>SigningKey`."""
    return api.door.call(f"{verb}SigningKey", getattr(pb, f"{verb}SigningKeyRequest")(**fields), api.authorization)


def test_a_key_tells_its_life(admin: Api) -> None:
    """The active key and the one that follows it, with every time that is known and a public key that is published."""
    following = asked(admin, "Prepare").signing_key
    listed = keys(admin)
    assert following.kid in listed
    (active,) = [key for key in listed.values() if key.state == KEY_STATE_ACTIVE]
    assert (following.state, following.algorithm) == (KEY_STATE_PREPARED, "RS256")
    assert active.HasField("activate_time")
    assert not following.HasField("purge_time")
    waits = following.earliest_activate_time.ToDatetime() - following.create_time.ToDatetime()
    assert waits == timedelta(seconds=330)
    key_set = admin.keys()
    published = {key["kid"]: key for key in key_set}
    assert published[following.kid]["n"] == following.public_key.n
    assert set(listed) == set(published)


@pytest.mark.parametrize("verb", ["Activate", "Retire", "Revoke"])
def test_an_unknown_key_is_not_found(admin: Api, verb: str) -> None:
    """An unknown `kid` is not found."""
    with refused("NOT_FOUND", "KEY_NOT_FOUND"):
        asked(admin, verb, kid="no such key")


@pytest.mark.parametrize("verb", ["Activate", "Retire", "Revoke"])
def test_an_empty_kid_is_missing(grpc_admin: Api, verb: str) -> None:
    """The field at fault is named. (Over HTTP such a path is no route.)"""
    with refused("INVALID_ARGUMENT", field="kid"):
        asked(grpc_admin, verb)


def test_a_wrong_state_is_refused(admin: Api) -> None:
    """A key that verifiers may not have seen does not sign; the active one neither becomes active nor is retired."""
    prepared = asked(admin, "Prepare").signing_key.kid
    with refused("FAILED_PRECONDITION", "KEY_NOT_PUBLISHED_LONG_ENOUGH"):
        asked(admin, "Activate", kid=prepared)
    (active,) = [kid for kid, key in keys(admin).items() if key.state == KEY_STATE_ACTIVE]
    with refused("FAILED_PRECONDITION", "KEY_NOT_PREPARED"):
        asked(admin, "Activate", kid=active)
    with refused("FAILED_PRECONDITION", "ACTIVATE_ANOTHER_FIRST"):
        asked(admin, "Retire", kid=active)


@pytest.mark.parametrize("kind", DOORS)
def test_the_emergency(fresh: Fresh, kind: str) -> None:
    """A revoked key is gone from the key set in the answer's moment, its tokens are inactive and no bearer; another
    key signs, and verifiers get it with the next key set. Other doors and a second call agree."""
    service = fresh()
    with opened(kind, service) as door, opened("grpc", service) as other:
        root = administrator(service, door)
        account = root.account()
        token = root.token(account)
        assert root.introspect(account, token).active
        kid = jwt.get_unverified_header(token)["kid"]
        answer = asked(root, "Revoke", kid=kid)
        assert (answer.signing_key.kid, answer.signing_key.state) == (kid, KEY_STATE_REVOKED)
        for each in (root, Api(other, service.issuer)):
            key_set = each.keys()
            published = {key["kid"] for key in key_set}
            assert kid not in published
            assert answer.active_key.kid in published
            assert not each.introspect(account, token).active
        with refused("UNAUTHENTICATED", "INVALID_TOKEN"):
            keys(root)  # the administrator's own token was signed by it as well
        again = administrator(service, door)
        assert keys(again)[kid].state == KEY_STATE_REVOKED
        assert jwt.get_unverified_header(again.token(account))["kid"] == answer.active_key.kid
        assert asked(again, "Revoke", kid=kid).active_key.kid == answer.active_key.kid


def test_a_rotation_by_the_service_itself(fresh: Fresh) -> None:
    """RotateSigningKey says when; the job does it then; tokens from before stay good, and the next token is by the
    new key."""
    service = fresh()
    with opened("grpc", service) as door:
        root = administrator(service, door)
        before = root.token(first_account(service))
        planned = asked(root, "Rotate").signing_key
        assert planned.state == KEY_STATE_PREPARED
        assert planned.activate_time == planned.earliest_activate_time
        assert asked(root, "Rotate").signing_key == planned
        service.clock.advance(timedelta(seconds=330))
        until(lambda: signs_with(root.token(first_account(service))) == planned.kid, 10.0, "signed by the next key")
        assert root.introspect(first_account(service), before).active


def signs_with(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])
