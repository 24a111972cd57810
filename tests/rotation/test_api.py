"""Policies, the plan and its run over every door: what is kept and shown, what is refused, who may."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from artstore_grpc.sinks.configuration import Sinks
from tests.api.callers import Api, unique
from tests.api.conftest import administrator, first_account
from tests.api.doors import DOORS, Door, opened, refused
from tests.installation import Installation
from tests.rotation.shelf import Shelf
from tests.signers import Signer

DAY = 86_400


@pytest.fixture(scope="module")
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[Installation]:
    """An installation with a sink, for this module."""
    with Installation(tmp_path_factory.mktemp("rotation"), sinks=Sinks({"shelf": shelf})) as made:
        yield made


@pytest.fixture(scope="module", params=DOORS)
def door(request: pytest.FixtureRequest, service: Installation) -> Iterator[Door]:
    with opened(request.param, service) as made:
        yield made


@pytest.fixture(scope="module")
def admin(door: Door, service: Installation) -> Api:
    return administrator(service, door)


@pytest.fixture(scope="module")
def root(service: Installation) -> Iterator[Api]:
    """The administrator over gRPC alone."""
    with opened("grpc", service) as door:
        yield administrator(service, door)


def policy(mode: Any = pb.ROTATION_MODE_MANAGED, **changes: Any) -> pb.RotationPolicy:
    given = {"schedule": "0 3 * * 1", "overlap": Duration(seconds=DAY)} | changes
    if mode == pb.ROTATION_MODE_MANAGED:
        given = {"sink": "shelf"} | given
    return pb.RotationPolicy(mode=mode, **given)


def plan(api: Api, **fields: Any) -> list[pb.PlannedStep]:
    """Every step of the plan, page by page."""
    found: list[pb.PlannedStep] = []
    request = pb.PlanRotationsRequest(**fields)
    while True:
        page = api.door.call("PlanRotations", request, api.authorization)
        assert len(page.steps) <= (request.page_size or 50)
        found += page.steps
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


def until(days: int) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    return made


def test_what_is_kept(admin: Api) -> None:
    """A policy comes back as it was given, with when it has the secret rotated next; a retry answers it again; an
    update of another field leaves it, `manual` takes it away."""
    request_id, name = str(uuid4()), unique()
    made, again = (
        admin.create(name=name, rotation_policy=policy(destination="place"), request_id=request_id) for _ in range(2)
    )
    assert made == again
    account = made.service_account
    assert account.rotation_policy == policy(destination="place")
    monday = account.next_rotate_time.ToDatetime(UTC)
    assert (monday.weekday(), monday.hour, monday.minute) == (0, 3, 0)
    assert admin.get(account.id).rotation_policy == account.rotation_policy
    assert admin.update(account.id, "description", description="x").rotation_policy == account.rotation_policy
    by_hand = admin.update(account.id, "rotation_policy")
    assert not by_hand.HasField("rotation_policy")
    assert not by_hand.HasField("next_rotate_time")


def test_without_a_mask(admin: Api) -> None:
    """An update without a mask sets a policy that is given (AIP-134), and its defaults are filled in."""
    account = admin.create().service_account
    given = pb.RotationPolicy(mode=pb.ROTATION_MODE_SELF)
    changed = admin.update(account.id, rotation_policy=given)
    assert changed.rotation_policy == pb.RotationPolicy(mode=pb.ROTATION_MODE_SELF, overlap=Duration(seconds=DAY))


SELF, MANUAL = pb.ROTATION_MODE_SELF, pb.ROTATION_MODE_MANUAL
REFUSED: dict[str, tuple[str, pb.RotationPolicy]] = {
    "no sink of this name": ("sink", policy(sink="nowhere")),
    "no sink": ("sink", policy(sink="")),
    "a sink of 101 characters": ("sink", policy(sink="x" * 101)),
    "a place that the sink can't have": ("destination", policy(destination="/etc/passwd")),
    "a place with a line break": ("destination", policy(destination="a\nb")),
    "no schedule": ("schedule", policy(schedule="")),
    "nonsense": ("schedule", policy(schedule="every monday")),
    "seconds": ("schedule", policy(schedule="0 0 3 * * 1")),
    "every minute": ("schedule", policy(schedule="* * * * *", overlap=Duration())),
    "twice an hour": ("schedule", policy(schedule="0,59 3 * * *", overlap=Duration())),
    "never": ("schedule", policy(schedule="0 0 30 2 *")),
    "an overlap as long as the schedule": ("overlap", policy(schedule="0 3 * * *")),
    "a negative overlap": ("overlap", policy(overlap=Duration(seconds=-1))),
    "an overlap of 31 days": ("overlap", policy(overlap=Duration(seconds=31 * DAY))),
    "no duration": ("overlap", policy(overlap=Duration(seconds=1, nanos=-1))),
    "self without an overlap to rotate in": (
        "overlap",
        policy(SELF, schedule="0 3 * * 1", overlap=Duration(seconds=3599)),
    ),
    "self with a sink": ("sink", policy(SELF, sink="shelf")),
    "self with a place": ("destination", policy(SELF, destination="x")),
    "manual with a schedule": ("schedule", policy(MANUAL)),
    "manual with an overlap": ("overlap", pb.RotationPolicy(overlap=Duration(seconds=5))),
}
ACCEPTED = {
    "every hour": policy(schedule="0 * * * *", overlap=Duration(seconds=1800)),
    "every day": policy(schedule="0 3 * * *", overlap=Duration(seconds=DAY - 1800)),
    "no overlap": policy(overlap=Duration()),
    "the 29th of February": policy(schedule="0 0 29 2 *", overlap=Duration(seconds=30 * DAY)),
    "self": policy(SELF),
    "self without a schedule": policy(SELF, schedule=""),
    "manual": pb.RotationPolicy(mode=MANUAL, overlap=Duration(seconds=DAY)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(root: Api, case: str) -> None:
    """Each is refused with its field, at Create and at Update."""
    field, given = REFUSED[case]
    with refused("INVALID_ARGUMENT", field=f"rotation_policy.{field}"):
        root.create(rotation_policy=given)
    account = root.create().service_account
    with refused("INVALID_ARGUMENT", field=f"rotation_policy.{field}"):
        root.update(account.id, rotation_policy=given)


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(root: Api, case: str) -> None:
    """Up to each bound."""
    given = ACCEPTED[case]
    kept = root.create(rotation_policy=given).service_account.rotation_policy
    assert kept == (pb.RotationPolicy() if given.mode == MANUAL else given)


def test_refused_over_every_door(admin: Api) -> None:
    """The same refusal whichever way it came, an unknown mode too."""
    with refused("INVALID_ARGUMENT", "SINK_UNKNOWN", "rotation_policy.sink"):
        admin.create(rotation_policy=policy(sink="nowhere"))
    with refused("INVALID_ARGUMENT"):
        admin.create(rotation_policy=pb.RotationPolicy(mode=99))  # type: ignore[arg-type]


def test_an_account_without_a_secret(root: Api) -> None:
    """There is nothing to rotate: neither made so nor changed to it."""
    account = pb.ServiceAccount(name=unique(), role=pb.ROLE_USER, public_keys=[Signer().public])
    account.rotation_policy.CopyFrom(policy())
    request = pb.CreateServiceAccountRequest(service_account=account, without_secret=True)
    with refused("INVALID_ARGUMENT", field="without_secret"):
        root.door.call("CreateServiceAccount", request, root.authorization)
    request.service_account.ClearField("rotation_policy")
    made = root.door.call("CreateServiceAccount", request, root.authorization).service_account
    with refused("INVALID_ARGUMENT", field="rotation_policy.mode"):
        root.update(made.id, rotation_policy=policy())


def test_nobody_sets_their_own(service: Installation, root: Api) -> None:
    """A stolen token must not have the next secret sent to its thief."""
    with refused("FAILED_PRECONDITION", "OWN_ACCOUNT"):
        root.update(first_account(service).id, rotation_policy=policy())


def test_nobody_sets_for_more_than_they_hold(root: Api) -> None:
    """Who lacks one of an account's scopes can't say where its secrets go."""
    lesser = root.account("admin", scopes=["identity.accounts.write", "identity.accounts.read"])
    target = root.account("user")
    with refused("PERMISSION_DENIED", "SCOPE_NOT_HELD"):
        root.bearer(lesser).update(target.id, rotation_policy=policy())


def test_the_plan(admin: Api) -> None:
    """Of every account what is to come, whatever the size of the pages; each step once, an account's in their order."""
    mine = {admin.create(rotation_policy=policy()).service_account.id for _ in range(3)}
    whole = plan(admin, until=until(100))
    assert {step.account_id for step in whole} >= mine
    for account_id in mine:
        own = [step for step in whole if step.account_id == account_id]
        assert [step.action for step in own] == [1, 4, 5]
        assert [step.time.seconds for step in own] == sorted(step.time.seconds for step in own)
        assert all(step.client_id and step.name and step.reason for step in own)
    for size in (1, 2, 1000):
        paged = plan(admin, until=until(100), page_size=size) if size != 1000 else whole
        assert [(s.account_id, s.action) for s in paged] == [(s.account_id, s.action) for s in whole]
    assert {step.action for step in plan(admin) if step.account_id in mine} == {1}


def test_the_plan_s_bounds(admin: Api) -> None:
    """A negative size, a page token of another plan, a horizon beyond ten years."""
    with refused("INVALID_ARGUMENT", field="page_size"):
        plan(admin, page_size=-1)
    with refused("INVALID_ARGUMENT", field="until"):
        plan(admin, until=until(5000))
    admin.create(rotation_policy=policy())
    page = admin.door.call("PlanRotations", pb.PlanRotationsRequest(until=until(100), page_size=1), admin.authorization)
    with refused("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN"):
        plan(admin, until=until(50), page_token=page.next_page_token)


def run(api: Api, **fields: Any) -> pb.RunRotationsResponse:
    answer: pb.RunRotationsResponse = api.door.call("RunRotations", pb.RunRotationsRequest(**fields), api.authorization)
    return answer


@pytest.mark.parametrize("kind", DOORS)
def test_the_run(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    """What is due is shown by `dry_run`, done by `run`, at most `max_steps` of it, and then no more; a step that fails
    says why; the delivered secret gets a token."""
    shelf = Shelf()
    with (
        Installation(tmp_path_factory.mktemp("run"), sinks=Sinks({"shelf": shelf})) as service,
        opened(kind, service) as door,
    ):
        admin = administrator(service, door)
        made = [admin.create(rotation_policy=policy()).service_account for _ in range(2)]
        assert not run(admin, dry_run=True).results
        service.clock.advance(timedelta(days=7))
        admin = administrator(service, door)
        dry = run(admin, dry_run=True)
        assert {(result.step.account_id, result.step.action) for result in dry.results} == {
            (account.id, pb.ROTATION_ACTION_ROTATE) for account in made
        }
        assert not dry.more
        assert run(admin, dry_run=True, max_steps=1).more
        shelf.failures = [RuntimeError("broken")]
        first = run(admin, max_steps=2)
        assert not first.more, "nothing is delivered before every replica knows it"
        assert [result.step.action for result in first.results] == [pb.ROTATION_ACTION_ROTATE] * 2
        service.clock.advance(timedelta(minutes=1))
        second = run(admin)
        failed = [result for result in second.results if result.HasField("error")]
        assert (len(second.results), len(failed), second.more) == (2, 1, False)
        assert failed[0].error.message == "The sink failed unexpectedly; the log has the error."
        (client_id, delivery), *rest = shelf.held.items()
        assert not rest
        token = service.token(client_id, delivery.client_secret)
        assert token
        waiting = admin.get(failed[0].step.account_id)
        assert (waiting.secret_delivery.attempts, len(waiting.secrets)) == (1, 2)
        with refused("INVALID_ARGUMENT", field="max_steps"):
            run(admin, max_steps=-1)
