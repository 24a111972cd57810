"""Delete, undelete, suspend and activate over every door; expiry and purge by the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb

from artstore_grpc.jobs import Purge
from artstore_grpc.model import DELETED_RETENTION, SECRET_LIFETIME
from artstore_grpc.store.sql import SqlStore
from tests.api.callers import Api
from tests.api.conftest import administrator, first_account
from tests.api.doors import refused
from tests.installation import Account, Installation

Verb = Callable[[Api, str], object]

VERBS: dict[str, Verb] = {
    "delete": Api.delete,
    "undelete": Api.undelete,
    "suspend": Api.suspend,
    "activate": Api.activate,
    "rotate": Api.rotate,
    "revoke secret": lambda api, account: api.revoke_secret(account, "0123456789"),
    "update": lambda api, account: api.update(account, "description", description="changed"),
}


def assert_shut_out(admin: Api, account: Account, token: str) -> None:
    """Neither the account's secret nor the token it had is accepted anywhere."""
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        admin.issue(account)
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        admin.introspect(account, token)
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        admin.basic(account).rotate(account.id)
    with refused("UNAUTHENTICATED", "INVALID_TOKEN"):
        replace(admin, authorization=f"Bearer {token}").get(account.id)


def test_a_deletion_is_soft(admin: Api) -> None:
    """A deleted account is refused everywhere at once, is still read, and says when it will be purged."""
    account = admin.account("admin")
    token = admin.token(account, audience=(admin.issuer,))
    assert replace(admin, authorization=f"Bearer {token}").get(account.id).id == account.id
    deleted = admin.delete(account.id)
    assert deleted.state == pb.STATE_DELETED == admin.get(account.id).state
    assert deleted.purge_time.ToDatetime() - deleted.delete_time.ToDatetime() == timedelta(days=30)
    assert_shut_out(admin, account, token)


def test_undelete_restores(admin: Api) -> None:
    """The account is as it was, and its old secret works again."""
    account = admin.account(description="kept")
    admin.token(account)
    admin.delete(account.id)
    restored = admin.undelete(account.id)
    assert (restored.state, restored.description) == (pb.STATE_ACTIVE, "kept")
    assert not restored.HasField("delete_time")
    assert not restored.HasField("purge_time")
    assert admin.token(account)


def test_an_unused_secret_survives_a_deletion(admin: Api) -> None:
    """A secret that never succeeded, and so has no tag, works after undelete as well."""
    account = admin.account()
    admin.delete(account.id)
    admin.undelete(account.id)
    assert admin.token(account)


def test_a_suspension_shuts_out_at_once(admin: Api) -> None:
    """A suspended account's secret and tokens are refused, and work again once it is activated."""
    account = admin.account("admin")
    token = admin.token(account, audience=(admin.issuer,))
    assert admin.suspend(account.id).state == pb.STATE_SUSPENDED
    assert_shut_out(admin, account, token)
    assert admin.activate(account.id).state == pb.STATE_ACTIVE
    assert admin.token(account)


def test_a_suspension_outlasts_a_deletion(admin: Api) -> None:
    """Undelete restores what was deleted, a suspended account as suspended."""
    account = admin.account()
    admin.suspend(account.id)
    assert admin.delete(account.id).state == pb.STATE_DELETED
    assert admin.undelete(account.id).state == pb.STATE_SUSPENDED
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        admin.issue(account)


@pytest.mark.parametrize(
    ("before", "verb", "reason"),
    [
        ("active", "undelete", "ACCOUNT_NOT_DELETED"),
        ("active", "activate", "ACCOUNT_NOT_SUSPENDED"),
        ("suspended", "suspend", "ACCOUNT_SUSPENDED"),
        ("suspended", "undelete", "ACCOUNT_NOT_DELETED"),
        ("deleted", "delete", "ACCOUNT_DELETED"),
        ("deleted", "suspend", "ACCOUNT_DELETED"),
        ("deleted", "activate", "ACCOUNT_DELETED"),
        ("deleted", "rotate", "ACCOUNT_DELETED"),
        ("deleted", "revoke secret", "ACCOUNT_DELETED"),
        ("deleted", "update", "ACCOUNT_DELETED"),
    ],
)
def test_verbs_out_of_order(admin: Api, before: str, verb: str, reason: str) -> None:
    """A verb that an account's state doesn't allow is FAILED_PRECONDITION and changes nothing (AIP-216)."""
    account = admin.account()
    {"active": admin.get, "suspended": admin.suspend, "deleted": admin.delete}[before](account.id)
    message = admin.get(account.id)
    with refused("FAILED_PRECONDITION", reason):
        VERBS[verb](admin, account.id)
    assert admin.get(account.id) == message


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_need_an_account(admin: Api, verb: str) -> None:
    """Nobody's id is NOT_FOUND."""
    with refused("NOT_FOUND", "NOT_FOUND"):
        VERBS[verb](admin, "sa_dev_nobody_00000000")


@pytest.mark.parametrize("verb", ["delete", "undelete", "suspend", "activate", "rotate", "revoke_secret"])
def test_verbs_keep_to_the_etag(admin: Api, verb: str) -> None:
    """A stale etag stops every verb; the present one lets it pass."""
    account = admin.account()
    prepared = {"undelete": admin.delete, "activate": admin.suspend}.get(verb, admin.get)(account.id)
    more = (account.message.secrets[0].id,) if verb == "revoke_secret" else ()
    with refused("ABORTED", "ETAG_MISMATCH"):
        getattr(admin, verb)(account.id, *more, etag="0123456789abcdef")
    getattr(admin, verb)(account.id, *more, etag=prepared.etag)
    assert admin.get(account.id).etag != prepared.etag


def test_the_first_administrator_stays(admin: Api) -> None:
    """The installation's own account can't be deleted, by no other administrator either."""
    other = admin.bearer(admin.account("admin"))
    (first,) = (a for page in other.pages(page_size=1000, filter="role = admin") for a in page if a.is_system)
    with refused("FAILED_PRECONDITION", "SYSTEM_ACCOUNT"):
        other.delete(first.id)
    assert other.get(first.id).state == pb.STATE_ACTIVE


@pytest.mark.parametrize("verb", ["delete", "suspend"])
def test_nobody_shuts_out_oneself(admin: Api, verb: str) -> None:
    """An administrator that deleted or suspended itself could not come back."""
    account = admin.account("admin")
    with refused("FAILED_PRECONDITION", "OWN_ACCOUNT"):
        VERBS[verb](admin.bearer(account), account.client_id)
    assert admin.get(account.id).state == pb.STATE_ACTIVE


def test_an_account_expires_with_its_last_secret(alone: Installation, root: Api) -> None:
    """After 90 days its secret is refused; a new one makes it active again."""
    account = root.account()
    root.token(account)
    alone.clock.advance(SECRET_LIFETIME / 2)
    renewed = root.basic(first_account(alone)).rotated(first_account(alone))
    alone.clock.advance(SECRET_LIFETIME / 2 - timedelta(minutes=1))
    assert root.token(account)
    alone.clock.advance(timedelta(minutes=1))
    with refused("UNAUTHENTICATED", "INVALID_CLIENT"):
        root.token(account)
    later = root.bearer(renewed)
    assert later.get(account.id).state == pb.STATE_EXPIRED
    assert later.rotate(account.id).service_account.state == pb.STATE_ACTIVE


def purge(service: Installation) -> None:
    """One turn of the purge, by the installation's clock."""

    async def run() -> None:
        store = SqlStore(service.settings.store_url)
        await Purge(store, "a test", service.clock).run()
        await store.close()

    service.run(run())


def test_a_purge_frees_the_name(alone: Installation, root: Api) -> None:
    """30 days after its deletion an account is gone for good, and its name may be had again; not a day earlier."""
    account = root.account()
    root.delete(account.id)
    alone.clock.advance(DELETED_RETENTION - timedelta(days=1))
    purge(alone)
    early = administrator(alone, root.door)
    assert early.get(account.id).state == pb.STATE_DELETED
    alone.clock.advance(timedelta(days=1, seconds=1))
    late = administrator(alone, root.door)
    for verb in (late.get, late.undelete):
        with refused("NOT_FOUND", "NOT_FOUND"):
            verb(account.id)
    purge(alone)
    assert not late.pages(filter=f'name = "{account.message.name}"', show_deleted=True)[0]
    assert late.create(name=account.message.name).service_account.id != account.id


def test_a_purge_spares_the_living(alone: Installation, root: Api) -> None:
    """Accounts that were undeleted in time, suspended or never deleted stay."""
    undeleted, suspended, active = (root.account() for _ in range(3))
    root.delete(undeleted.id)
    root.undelete(undeleted.id)
    root.suspend(suspended.id)
    alone.clock.advance(2 * DELETED_RETENTION)
    purge(alone)
    late = administrator(alone, root.door)
    assert {late.get(account.id).id for account in (undeleted, suspended, active)} == {
        undeleted.id,
        suspended.id,
        active.id,
    }
