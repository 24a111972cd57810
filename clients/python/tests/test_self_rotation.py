"""The protocol of self-rotation, step by step: replicas that crash, stall and meet, over one document.

The service and the store are models (replicas.py); tests/client_library has the real ones.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from artstore.identity import (
    CredentialsError,
    FailedPrecondition,
    InvalidClient,
    SelfRotationPolicy,
    Unavailable,
)
from artstore.identity.exchanges import Issued
from artstore.identity.steps import Call, Pause, Work
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from replicas import LIFE, START, Replica, Service, Shelf


@pytest.fixture
def service() -> Service:
    made = Service()
    made.secrets[0].used = True
    return made


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def test_the_steps_in_their_order(service: Service, shelf: Shelf) -> None:
    """Claimed, noted beside the old one, proved, promoted: four documents and two calls."""
    replica = Replica(service, shelf)
    replica.begin()
    calls = [step.method for step in replica.steps() if isinstance(step, Call)]
    assert replica.outcome is True
    assert calls == ["RotateSecret", "IssueToken"]
    claimed, noted, promoted = shelf.written
    assert (claimed.client_secret, claimed.rotation and claimed.rotation.client_secret) == ("secret-0", "")
    assert (noted.client_secret, noted.rotation and noted.rotation.client_secret) == ("secret-0", "secret-1")
    assert (promoted.client_secret, promoted.rotation) == ("secret-1", None)
    assert (promoted.secret_create_time, promoted.secret_expire_time) == (START, START + LIFE)
    assert service.works("secret-0"), "the overlap"


@pytest.mark.parametrize("after", range(12))
@pytest.mark.parametrize(
    "away", [timedelta(seconds=1), timedelta(minutes=2), timedelta(minutes=11), timedelta(hours=23)]
)
def test_a_crash_after_any_step(service: Service, shelf: Shelf, after: int, away: timedelta) -> None:
    """Whoever starts again, however much later within the overlap, has a secret that works, and ends the rotation."""
    replica = Replica(service, shelf)
    replica.begin()
    for _ in range(after):
        if replica.step() is None:
            break
    service.now += away
    assert service.works(shelf.document.client_secret)
    successor = Replica(service, shelf)
    outcome = successor.run(again=False)
    if outcome is False and shelf.document.rotation is not None:
        assert away < timedelta(minutes=1)
        service.now += timedelta(minutes=1)
        outcome = successor.run(again=False)
    assert not isinstance(outcome, Exception)
    assert shelf.document.rotation is None
    assert service.works(shelf.document.client_secret)
    assert shelf.document.client_secret == ("secret-0" if not service.rotations else f"secret-{service.rotations}")


def test_a_rotation_that_another_thread_ended(service: Service, shelf: Shelf) -> None:
    """Two of one replica are at it: the one that comes second to an end doesn't begin another rotation."""
    for stopped in range(2, 9):
        service, shelf = Service(), Shelf()
        service.secrets[0].used = True
        replica = Replica(service, shelf)
        replica.begin()
        for _ in range(stopped):
            replica.step()
        other = Replica(service, shelf)
        other.rotation.owner = replica.rotation.owner
        assert other.run(again=False) in (True, False)
        for _ in replica.steps():
            pass
        assert replica.outcome is True
        assert service.rotations == 1


def test_another_replica_waits_for_a_minute(service: Service, shelf: Shelf) -> None:
    """A claim that is fresh is left alone; one that nobody touched for a minute is gone on with, to the same secret."""
    dead, other = Replica(service, shelf, seed=1), Replica(service, shelf, seed=2)
    dead.begin()
    while not service.rotations:
        dead.step()
    assert other.run() is False
    service.now += timedelta(seconds=59)
    assert other.run() is False
    service.now += timedelta(seconds=1)
    assert other.run() is True
    assert (service.rotations, shelf.document.client_secret) == (1, "secret-1")


def test_a_replica_that_was_only_stalled(service: Service, shelf: Shelf) -> None:
    """One that wakes up after another took over changes nothing, at whatever step it fell asleep."""
    for asleep in range(1, 9):
        service, shelf = Service(), Shelf()
        service.secrets[0].used = True
        stalled, other = Replica(service, shelf, seed=1), Replica(service, shelf, seed=2)
        stalled.begin(again=False)
        shelf.document = replace(shelf.document, secret_create_time=None, secret_expire_time=START + timedelta(days=1))
        for _ in range(asleep):
            stalled.step()
        service.now += timedelta(minutes=2)
        other.run(again=False)
        for _ in stalled.steps():
            pass
        assert shelf.document.rotation is None
        assert (service.rotations, shelf.document.client_secret) == (1, "secret-1")


def test_an_answer_that_is_no_longer_kept(service: Service, shelf: Shelf) -> None:
    """After ten minutes the same request_id is no use: a new one gets a new secret in the place of the lost one."""
    dead = Replica(service, shelf, seed=1)
    dead.begin()
    while not service.rotations:
        dead.step()
    service.now += timedelta(minutes=11)
    assert Replica(service, shelf, seed=2).run() is True
    assert (service.rotations, shelf.document.client_secret) == (2, "secret-2")
    assert not service.works("secret-1")


def test_two_secrets_in_use(service: Service, shelf: Shelf) -> None:
    """The rotation waits: the claim is taken back, and the working secret is where it was."""
    replica = Replica(service, shelf)
    assert replica.run() is True
    outcome = replica.run()
    assert isinstance(outcome, FailedPrecondition)
    assert (shelf.document.client_secret, shelf.document.rotation) == ("secret-1", None)
    service.now += timedelta(hours=25)
    assert replica.run() is True
    assert shelf.document.client_secret == "secret-2"


def test_a_new_secret_that_was_revoked(service: Service, shelf: Shelf) -> None:
    """Refused while the old one isn't: another is asked for."""
    replica = Replica(service, shelf)
    replica.begin()
    while not (shelf.document.rotation and shelf.document.rotation.client_secret):
        replica.step()
    service.secrets = [each for each in service.secrets if each.text != "secret-1"]
    for _ in replica.steps():
        pass
    assert replica.outcome is True
    assert shelf.document.client_secret == "secret-2"


def test_a_suspended_account_keeps_both(service: Service, shelf: Shelf) -> None:
    """Both are refused, and nothing is given up: when the account is active again the rotation ends."""
    replica = Replica(service, shelf)
    replica.begin()
    while not (shelf.document.rotation and shelf.document.rotation.client_secret):
        replica.step()
    service.suspended = True
    for _ in replica.steps():
        pass
    assert isinstance(replica.outcome, InvalidClient)
    assert shelf.document.rotation is not None
    assert shelf.document.rotation.client_secret == "secret-1"
    service.suspended = False
    assert replica.run() is True
    assert service.rotations == 1


def test_an_old_secret_that_died_meanwhile(service: Service, shelf: Shelf) -> None:
    """Where the new one was noted, its proof doesn't need the old one: also days after the overlap."""
    dead = Replica(service, shelf, seed=1)
    dead.begin()
    while not (shelf.document.rotation and shelf.document.rotation.client_secret):
        dead.step()
    service.now += timedelta(days=3)
    assert not service.works("secret-0")
    assert Replica(service, shelf, seed=2).run() is True
    assert service.works(shelf.document.client_secret)


@pytest.mark.parametrize("seed", range(5))
def test_when_it_is_due(service: Service, shelf: Shelf, seed: int) -> None:
    """In the last third of the secret's life, up to a fifth of that later; replicas differ."""
    rotation = Replica(service, shelf, seed=seed).rotation
    service.now = START + LIFE * (2 / 3) - timedelta(seconds=1)
    assert not rotation.due(shelf.document)
    service.now = START + LIFE * (2 / 3) + LIFE / 3 / 5 + timedelta(seconds=1)
    assert rotation.due(shelf.document)


def test_a_life_that_is_not_known(service: Service, shelf: Shelf) -> None:
    """Thirty days before the end where it isn't said when the secret was made; never where no end is known."""
    rotation = Replica(service, shelf).rotation
    unknown = replace(shelf.document, secret_create_time=None)
    service.now = START + LIFE - timedelta(days=31)
    assert not rotation.due(unknown)
    service.now = START + LIFE - timedelta(days=23)
    assert rotation.due(unknown)
    assert not rotation.due(replace(unknown, secret_expire_time=None))


def test_what_the_service_says_of_the_end(service: Service, shelf: Shelf) -> None:
    """Its word with a token counts for more than the document's, for that secret only. Where it is sooner somebody else
    has rotated, and has two thirds of what is left to bring the new secret, however old the present one is."""
    rotation = Replica(service, shelf).rotation
    service.now = START + LIFE / 3
    assert not rotation.due(shelf.document)
    answer = tokens_pb.IssueTokenResponse()
    answer.secret_expire_time.FromDatetime(service.now + timedelta(hours=20))
    rotation.note(Issued(shelf.document.credentials, answer))
    service.now += timedelta(hours=13)
    rotation.note(Issued(shelf.document.credentials, answer))
    assert not rotation.due(shelf.document)
    service.now += timedelta(hours=2)
    assert rotation.due(shelf.document)
    assert not rotation.due(replace(shelf.document, client_secret="another"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"overlap": timedelta(0)},
        {"overlap": timedelta(days=31)},
        {"claim_timeout": timedelta(0)},
        {"check_interval": timedelta(0)},
    ],
)
def test_policies_out_of_bounds(wrong: dict[str, timedelta]) -> None:
    """No overlap would cut other replicas off; the service takes at most thirty days."""
    with pytest.raises(ValueError, match="must be"):
        SelfRotationPolicy(**wrong)


def test_keeping_fresh_outlives_failures(service: Service, shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is logged, kept where it can be seen, and tried again; no word of it is secret. A half-done rotation is
    looked at again within the minute."""
    shelf.document = replace(shelf.document, secret_create_time=None, secret_expire_time=START + timedelta(days=1))
    replica = Replica(service, shelf)
    service.down = True
    replica._running = replica.rotation.keep_fresh()
    pauses = (step.seconds for step in replica.steps() if isinstance(step, Pause))
    assert next(pauses) <= SelfRotationPolicy().check_interval.total_seconds()
    assert isinstance(replica.rotation.failure, Unavailable)
    assert "the secret was not rotated" in caplog.text
    assert "secret-0" not in caplog.text
    service.down = False
    assert next(pauses) <= SelfRotationPolicy().claim_timeout.total_seconds()
    assert replica.rotation.failure is None
    assert replica.rotation.rotated == 1
    assert next(pauses) > SelfRotationPolicy().claim_timeout.total_seconds()


def test_a_store_that_breaks_does_not_end_it(service: Service, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a store raises, the next look comes."""
    replica = Replica(service, shelf)

    def broken() -> Any:
        raise CredentialsError("The disk is gone.")

    monkeypatch.setattr(shelf, "read", broken)
    running = replica.rotation.keep_fresh()
    step = next(running)
    assert isinstance(step, Work)
    assert isinstance(running.throw(CredentialsError("The disk is gone.")), Pause)
    assert isinstance(replica.rotation.failure, CredentialsError)
    assert isinstance(running.send(None), Work)
    assert isinstance(running.throw(RuntimeError("a defect")), Pause)
    running.close()
