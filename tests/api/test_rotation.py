"""RotateSecret and RevokeSecret over every door: overlap, two live secrets, who may; expiry by the clock."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb

from artstore_grpc.model import SECRET_LIFETIME, Role
from artstore_grpc.secrets import Hasher, secret_id
from tests.api.assertion_cases import credentials, made
from tests.api.callers import Api
from tests.api.conftest import administrator, first_account
from tests.api.doors import refused
from tests.installation import Account, Installation
from tests.signers import Signer

NOW = timedelta(0)


def works(api: Api, account: Account) -> bool:
    """Whether the account's secret authenticates; anything but a plain refusal fails the test."""
    try:
        with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
            api.issue(account)
    except pytest.fail.Exception:  # not refused
        return True
    return False


def test_both_secrets_live_through_the_overlap(admin: Api) -> None:
    """By default the old secret lives on for 24 hours beside the new one, which expires after 90 days."""
    account = admin.account()
    response = admin.rotate(account.id)
    new, previous = response.service_account.secrets
    assert new.id == secret_id(response.client_secret)
    assert previous.id == secret_id(account.secret) == response.previous_secrets[0].id
    overlap = previous.expire_time.ToDatetime() - new.create_time.ToDatetime()
    assert timedelta(hours=24) <= overlap < timedelta(hours=24, minutes=1)
    assert response.secret_expire_time == new.expire_time
    assert new.expire_time.ToDatetime() - new.create_time.ToDatetime() == SECRET_LIFETIME
    assert works(admin, account)
    assert works(admin, replace(account, secret=response.client_secret))
    assert [secret.id for secret in admin.get(account.id).secrets] == [new.id, previous.id]


def test_without_overlap_the_old_one_dies_now(admin: Api) -> None:
    """overlap 0: the new secret is the only one."""
    account = admin.account()
    assert works(admin, account)
    new = admin.rotated(account, overlap=NOW)
    assert (works(admin, account), works(admin, new)) == (False, True)
    assert [secret.id for secret in new.message.secrets] == [secret_id(new.secret)]


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=30, seconds=1)])
def test_overlaps_out_of_bounds(admin: Api, overlap: timedelta) -> None:
    """An overlap is 0 to 30 days."""
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "overlap"):
        admin.rotate(admin.account().id, overlap=overlap)


def test_of_two_the_never_used_is_replaced(admin: Api) -> None:
    """A rotation whose secret never arrived can be done again: the used secret stays, the lost one dies."""
    account = admin.account()
    assert works(admin, account)
    lost = admin.rotated(account)
    new = admin.rotated(account)
    assert (works(admin, account), works(admin, lost), works(admin, new)) == (True, False, True)


def test_two_used_secrets_stop_a_rotation(admin: Api) -> None:
    """Two live secrets that are in use: one has to be revoked first, and until then nothing changes."""
    account = admin.account()
    new = admin.rotated(account)
    assert works(admin, account)
    assert works(admin, new)
    for overlap in (None, NOW):
        with refused("FAILED_PRECONDITION", "TWO_LIVE_SECRETS"):
            admin.rotate(account.id, overlap=overlap)
    admin.revoke_secret(account.id, str(secret_id(account.secret)))
    newest = admin.rotated(account)
    assert (works(admin, account), works(admin, new), works(admin, newest)) == (False, True, True)


def test_never_more_than_two_are_live(admin: Api) -> None:
    """However often an unused secret is rotated."""
    account = admin.account()
    for _ in range(4):
        assert len(admin.rotate(account.id).service_account.secrets) == 2


def test_a_rotation_says_how_the_old_ones_were_used(admin: Api) -> None:
    """When and from where: so that an operator sees which one a service still uses."""
    account = admin.account()
    assert not admin.rotate(account.id).previous_secrets[0].HasField("last_used_time")
    account = admin.account()
    issued = admin.issue(account)
    (previous,) = admin.rotate(account.id).previous_secrets
    assert previous.last_used_time.seconds in range(issued.issue_time.seconds, issued.issue_time.seconds + 30)
    assert previous.last_used_source == "127.0.0.1"


@pytest.mark.parametrize("role", Role)
def test_a_service_rotates_its_own_secret(admin: Api, role: Role) -> None:
    """By that secret, whatever its role and scopes, and again by the new one."""
    account = admin.account(role.value)
    new = admin.basic(account).rotated(account, overlap=NOW)
    newest = admin.basic(new).rotated(new, overlap=NOW)
    assert (works(admin, account), works(admin, new), works(admin, newest)) == (False, False, True)


def test_a_token_does_not_rotate_its_own_account(admin: Api) -> None:
    """A stolen token must not become a lasting credential."""
    account = admin.account("admin")
    with refused("PERMISSION_DENIED", "SECRET_REQUIRED"):
        admin.bearer(account).rotate(account.id)
    narrow = admin.account(audiences=["artstore", admin.issuer])
    with refused("PERMISSION_DENIED", "INSUFFICIENT_SCOPE"):
        admin.bearer(narrow).rotate(narrow.id)
    assert len(admin.get(account.id).secrets) == 1


@pytest.mark.parametrize("role", ["user", "admin"])
def test_a_secret_does_not_rotate_another_account(admin: Api, role: str) -> None:
    """Not even an administrator's: what it may do to others needs a token."""
    account, other = admin.account(role), admin.account()
    with refused("PERMISSION_DENIED", "NOT_YOUR_ACCOUNT"):
        admin.basic(account).rotate(other.id)
    assert len(admin.get(other.id).secrets) == 1


def test_a_secret_does_nothing_but_rotate(admin: Api) -> None:
    """An administrator's secret is no token: the other methods don't take it."""
    account = admin.account("admin")
    with refused("UNAUTHENTICATED", "MISSING_TOKEN"):
        admin.basic(account).get(account.id)
    with refused("UNAUTHENTICATED", "MISSING_TOKEN"):
        admin.basic(account).revoke_secret(account.id, str(secret_id(account.secret)))


def test_a_revoked_secret_is_dead(admin: Api) -> None:
    """At once, and it alone."""
    account = admin.account()
    new = admin.rotated(account)
    assert works(admin, account)
    after = admin.revoke_secret(account.id, str(secret_id(account.secret)))
    assert [secret.id for secret in after.secrets] == [secret_id(new.secret)]
    assert (works(admin, account), works(admin, new)) == (False, True)


def test_the_last_secret_may_be_revoked(admin: Api) -> None:
    """The account can't authenticate until a rotation gives it a new one."""
    account = admin.account()
    assert not admin.revoke_secret(account.id, str(secret_id(account.secret))).secrets
    assert not works(admin, account)
    assert works(admin, admin.rotated(account))


def test_ones_own_last_secret_stays(admin: Api) -> None:
    """An administrator that revoked its only secret could not come back; one of two it may revoke."""
    account = admin.account("admin")
    caller = admin.bearer(account)
    with refused("FAILED_PRECONDITION", "OWN_ACCOUNT"):
        caller.revoke_secret(account.id, str(secret_id(account.secret)))
    new = admin.basic(account).rotated(account)
    caller.revoke_secret(account.id, str(secret_id(account.secret)))
    assert (works(admin, account), works(admin, new)) == (False, True)


def test_secrets_that_are_not_there(admin: Api) -> None:
    """An unknown secret id, another account's and none at all are refused."""
    account, other = admin.account(), admin.account()
    for unknown in ("0123456789", str(secret_id(other.secret)), account.secret):
        with refused("NOT_FOUND", "SECRET_NOT_FOUND"):
            admin.revoke_secret(account.id, unknown)
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "secret_id"):
        admin.revoke_secret(account.id, "")
    assert works(admin, other)


def test_suspended_accounts_get_secrets_and_no_tokens(admin: Api) -> None:
    """An operator may rotate a suspended account's secret before it is activated again."""
    account = admin.account()
    admin.suspend(account.id)
    new = admin.rotated(account, overlap=NOW)
    assert not works(admin, new)
    admin.activate(account.id)
    assert (works(admin, account), works(admin, new)) == (False, True)


def test_the_overlap_ends(alone: Installation, root: Api) -> None:
    """To the minute: the old secret works until then, and not after; the new one does."""
    account = root.account()
    new = root.rotated(account, overlap=timedelta(hours=1))
    alone.clock.advance(timedelta(minutes=59))
    assert works(root, account)
    alone.clock.advance(timedelta(minutes=2))
    assert (works(root, account), works(root, new)) == (False, True)
    assert len(administrator(alone, root.door).get(account.id).secrets) == 1


def test_the_overlap_lengthens_nothing(alone: Installation, root: Api) -> None:
    """A secret dies at its own expiry, however long the overlap."""
    account = root.account()
    alone.clock.advance(SECRET_LIFETIME / 2)
    renewed = root.basic(first_account(alone)).rotated(first_account(alone))
    alone.clock.advance(SECRET_LIFETIME / 2 - timedelta(hours=1))
    new = root.bearer(renewed).rotated(account, overlap=timedelta(days=30))
    alone.clock.advance(timedelta(hours=1))
    assert (works(root, account), works(root, new)) == (False, True)


def test_an_expired_secret_makes_room(alone: Installation, root: Api) -> None:
    """Only live secrets count: once the overlap has ended, two used ones are no obstacle."""
    account = root.account()
    new = root.rotated(account, overlap=timedelta(minutes=1))
    assert (works(root, account), works(root, new)) == (True, True)
    alone.clock.advance(timedelta(minutes=2))
    newest = root.rotated(account)
    assert (works(root, account), works(root, new), works(root, newest)) == (False, True, True)


def test_etags_change_with_secrets(admin: Api) -> None:
    """A rotation and a revocation are changes: the etag of before is stale after them."""
    account = admin.account()
    rotated = admin.rotate(account.id, etag=account.message.etag).service_account
    revoked = admin.revoke_secret(account.id, rotated.secrets[1].id, etag=rotated.etag)
    assert len({account.message.etag, rotated.etag, revoked.etag}) == 3
    assert revoked.state == pb.STATE_ACTIVE


def test_a_key_rotates_its_own_account(admin: Api) -> None:
    """An account with a key gets its first secret by an assertion, and the next; nobody else's, and no second time by
    the same assertion."""
    service = made(admin, Signer())

    def rotate(id: str, assertion: str, request_id: str = "") -> pb.RotateSecretResponse:
        request = pb.RotateSecretRequest(id=id, request_id=request_id, **credentials(assertion))
        response: pb.RotateSecretResponse = admin.door.call("RotateSecret", request)
        return response

    first = rotate(service.client_id, service.assertion())
    account = Account(service.id, service.client_id, first.client_secret, first.service_account)
    assert works(admin, account)
    used, again = service.assertion(), str(uuid4())
    second = rotate(service.client_id, used, again)
    assert rotate(service.client_id, service.assertion(), again) == second
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        rotate(service.client_id, used)
    with refused("PERMISSION_DENIED", "NOT_YOUR_ACCOUNT"):
        rotate(admin.account().id, service.assertion())
    request = pb.RotateSecretRequest(id=service.id, **credentials(service.assertion()))
    with refused("INVALID_ARGUMENT", "TWO_CLIENT_AUTHENTICATIONS"):
        admin.door.call("RotateSecret", request, admin.basic(account).authorization)


def test_a_key_that_was_taken_away_meanwhile_makes_no_secret(admin: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the check of an assertion and the commit lies a hash: what it proved must still hold then."""
    service = made(admin, Signer())
    hashing = Hasher.hash
    taken = threading.Event()

    async def slowly(hasher: Hasher, text: str) -> str:
        hashed = await hashing(hasher, text)
        await asyncio.to_thread(taken.wait, 10)
        return hashed

    request = pb.RotateSecretRequest(id=service.id, **credentials(service.assertion()))

    def rotate() -> None:
        with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
            admin.door.call("RotateSecret", request)

    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr(Hasher, "hash", slowly)
        rotating = pool.submit(rotate)
        time.sleep(0.5)
        admin.update(service.id, public_keys=[Signer(number=1).public])
        taken.set()
        rotating.result()
