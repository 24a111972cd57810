"""request_id (AIP-155): a retry gets the same answer, secret included, for ten minutes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from artstore_grpc.replays import KNOWN_FOR
from artstore_grpc.secrets import secret_id
from tests.api.callers import Api, unique
from tests.api.conftest import administrator
from tests.api.doors import refused
from tests.api.test_rotation import works
from tests.api.test_states import purge
from tests.installation import Account, Installation

COPIES = 8
TEN_MINUTES = timedelta(minutes=10)


def fresh_id() -> str:
    return str(uuid4())


def test_a_retried_creation(admin: Api) -> None:
    """The same request gets the same answer, secret included, and makes one account."""
    name, request_id = unique(), fresh_id()
    answers = [admin.create(name=name, request_id=request_id) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0].client_secret
    assert len(admin.pages(filter=f'name = "{name}"')[0]) == 1


def test_a_retried_rotation(admin: Api) -> None:
    """The same rotation gets the same secret, and makes one."""
    account, request_id = admin.account(), fresh_id()
    answers = [admin.rotate(account.id, request_id=request_id) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert len(admin.get(account.id).secrets) == 2
    assert works(admin, replace(account, secret=answers[0].client_secret))


def test_a_service_retries_its_own_rotation(admin: Api) -> None:
    """Also when the secret it proved itself with was ended by the very call that it retries and overlaps."""
    account, request_id = admin.account(), fresh_id()
    own = admin.basic(account)
    first = own.rotate(account.id, request_id=request_id)
    assert own.rotate(account.id, request_id=request_id) == first


def test_an_id_in_capitals_is_the_same(admin: Api) -> None:
    """A UUID is a number, however it is written."""
    name, request_id = unique(), fresh_id()
    assert admin.create(name=name, request_id=request_id) == admin.create(name=name, request_id=request_id.upper())


@pytest.mark.parametrize("change", [{"description": "other"}, {"role_name": "readonly"}, {"rate_limit": 7}])
def test_an_id_for_another_request(admin: Api, change: dict[str, object]) -> None:
    """One id, two contents: the second is refused, and makes nothing."""
    name, request_id = unique(), fresh_id()
    admin.create(name=name, request_id=request_id)
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
        admin.create(**{"name": name, "request_id": request_id, **change})  # type: ignore[arg-type]
    account, request_id = admin.account(), fresh_id()
    admin.rotate(account.id, request_id=request_id)
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
        admin.rotate(account.id, request_id=request_id, overlap=timedelta(hours=1))


def test_an_id_of_another_caller(admin: Api) -> None:
    """Ids belong to their caller: nobody is answered what another asked, nor learns that it was asked."""
    other = admin.bearer(admin.account("admin"))
    request_id = fresh_id()
    mine = admin.create(name=unique(), request_id=request_id)
    theirs = other.create(name=unique(), request_id=request_id)
    assert mine.service_account.id != theirs.service_account.id
    with refused("ALREADY_EXISTS", "NAME_TAKEN"):
        other.create(name=mine.service_account.name, request_id=fresh_id())


def test_an_id_of_another_method(admin: Api) -> None:
    """Create and RotateSecret don't share ids."""
    request_id = fresh_id()
    made = admin.create(request_id=request_id)
    rotated = admin.rotate(made.service_account.id, request_id=request_id)
    assert rotated.client_secret != made.client_secret


def test_a_refused_request_may_be_sent_again(admin: Api) -> None:
    """What was refused has left nothing behind: with the same id it can succeed later."""
    taken, request_id = admin.account(), fresh_id()
    with refused("ALREADY_EXISTS", "NAME_TAKEN"):
        admin.create(name=taken.message.name, request_id=request_id)
    admin.update(taken.id, "name", name=unique())
    assert admin.create(name=taken.message.name, request_id=request_id).client_secret


@pytest.mark.parametrize(
    "request_id",
    [
        "c232ab00-9414-11ec-b3c8-9f6bdeced846",
        "00000000-0000-0000-0000-000000000000",
        "f47ac10b58cc4372a5670e02b2c3d479",
        "{f47ac10b-58cc-4372-a567-0e02b2c3d479}",
        "urn:uuid:f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "x" * 36,
        "1",
    ],
)
def test_ids_that_are_not_random(admin: Api, request_id: str) -> None:
    """Only a version 4 UUID in its usual form is an id: anything guessable would open another's answer."""
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "request_id"):
        admin.create(request_id=request_id)
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "request_id"):
        admin.rotate(admin.account().id, request_id=request_id)


VOIDS: dict[str, Callable[[Api, Account], object]] = {
    "rotate": lambda api, account: api.rotate(account.id),
    "suspend": lambda api, account: api.suspend(account.id),
    "delete": lambda api, account: api.delete(account.id),
    "revoke": lambda api, account: api.revoke_secret(account.id, str(secret_id(account.secret))),
}


@pytest.mark.parametrize("verb", VOIDS)
def test_answers_are_void_after(admin: Api, verb: str) -> None:
    """Once the secret was replaced, revoked or shut out, a retry no longer hands it out."""
    name, request_id = unique(), fresh_id()
    account = admin.account(name=name, request_id=request_id)
    VOIDS[verb](admin, account)
    with refused("ALREADY_EXISTS", "REQUEST_ID_SPENT"):
        admin.create(name=name, request_id=request_id)


@pytest.mark.parametrize("verb", VOIDS)
def test_answers_of_rotations_are_void_after(admin: Api, verb: str) -> None:
    """The answer to a rotation as well."""
    account, request_id = admin.account(), fresh_id()
    admin.rotate(account.id, request_id=request_id)
    VOIDS[verb](admin, account)
    with refused("ALREADY_EXISTS", "REQUEST_ID_SPENT"):
        admin.rotate(account.id, request_id=request_id)


def test_answers_are_kept_ten_minutes(alone: Installation, root: Api) -> None:
    """The same answer just before, ALREADY_EXISTS without a secret after, and for a day."""
    name, request_id, account = unique(), fresh_id(), root.account()
    made = root.create(name=name, request_id=request_id)
    rotated = root.rotate(account.id, request_id=request_id)
    alone.clock.advance(TEN_MINUTES - timedelta(seconds=30))
    assert root.create(name=name, request_id=request_id) == made
    assert root.rotate(account.id, request_id=request_id).client_secret == rotated.client_secret
    alone.clock.advance(timedelta(minutes=1))
    for _ in range(2):
        with refused("ALREADY_EXISTS", "REQUEST_ID_SPENT"):
            root.create(name=name, request_id=request_id)
        with refused("ALREADY_EXISTS", "REQUEST_ID_SPENT"):
            root.rotate(account.id, request_id=request_id)
        alone.clock.advance(KNOWN_FOR - TEN_MINUTES - timedelta(minutes=2))
        purge(alone)
        root = administrator(alone, root.door)


def test_ids_are_forgotten_after_a_day(alone: Installation, root: Api) -> None:
    """An id that is older than a day and ten minutes is as good as new."""
    account, request_id = root.account(), fresh_id()
    first = root.rotate(account.id, request_id=request_id)
    alone.clock.advance(KNOWN_FOR + timedelta(minutes=1))
    purge(alone)
    again = administrator(alone, root.door).rotate(account.id, request_id=request_id)
    assert again.client_secret != first.client_secret


def test_a_crowd_of_equal_creations(alone: Installation, root: Api) -> None:
    """Eight at once make one account, and all get its secret."""
    name, request_id = unique(), fresh_id()
    with ThreadPoolExecutor(COPIES) as crowd:
        answers = list(crowd.map(lambda _: root.create(name=name, request_id=request_id), range(COPIES)))
    assert {answer.SerializeToString(deterministic=True) for answer in answers} == {
        answers[0].SerializeToString(deterministic=True)
    }
    assert [a.id for a in root.pages(filter=f'name = "{name}"')[0]] == [answers[0].service_account.id]


def test_a_crowd_of_equal_rotations(alone: Installation, root: Api) -> None:
    """Eight at once make one secret, and all get it."""
    account, request_id = root.account(), fresh_id()
    with ThreadPoolExecutor(COPIES) as crowd:
        answers = list(crowd.map(lambda _: root.rotate(account.id, request_id=request_id), range(COPIES)))
    assert len({answer.client_secret for answer in answers}) == 1
    assert len(root.get(account.id).secrets) == 2
    assert works(root, replace(account, secret=answers[0].client_secret))


def test_a_crowd_with_one_name(alone: Installation, root: Api) -> None:
    """Eight different requests for one name: one gets it, the others are told that it is taken."""
    name = unique()

    def attempt(_: int) -> str:
        try:
            with refused("ALREADY_EXISTS", "NAME_TAKEN"):
                root.create(name=name, request_id=fresh_id())
        except pytest.fail.Exception:  # not refused
            return "made"
        return "taken"

    with ThreadPoolExecutor(COPIES) as crowd:
        outcomes = sorted(crowd.map(attempt, range(COPIES)))
    assert outcomes == ["made"] + ["taken"] * (COPIES - 1)


def test_ids_and_secrets_are_never_logged(admin: Api, service: Installation) -> None:
    """Neither the id, which would open the stored answer, nor the secret."""
    request_id = fresh_id()
    made = admin.create(request_id=request_id)
    rotated = admin.rotate(made.service_account.id, request_id=request_id)
    log = service.log.getvalue()
    assert "CreateServiceAccount" in log
    for text in (request_id, request_id.replace("-", ""), made.client_secret, rotated.client_secret):
        assert text not in log
