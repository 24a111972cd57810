"""The protocol of self-rotation, step by step: replicas that crash, stall and meet, over one document.

The service and the store are models that keep the real ones' rules; tests/client_library has the real ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from artstore.identity import (
    AlreadyExists,
    CredentialsError,
    FailedPrecondition,
    IdentityError,
    InvalidClient,
    SelfRotation,
    SelfRotationPolicy,
    Unavailable,
)
from artstore.identity.connection import basic_authorization
from artstore.identity.credentials_document import Document
from artstore.identity.exchanges import Exchanges, Issued
from artstore.identity.steps import Call, Pause, Step, Work
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

LIFE = timedelta(days=90)
START = datetime(2030, 1, 1, tzinfo=UTC)
ME = "sa_dev_test_00000000"
REPLAYED_FOR = timedelta(minutes=10)


@dataclass
class Secret:
    text: str
    made: datetime
    expires: datetime
    used: bool = False


@dataclass
class Service:
    """One account of the service: its secrets and their rules (DESIGN §3)."""

    now: datetime = START
    secrets: list[Secret] = field(default_factory=list)
    answers: dict[str, tuple[datetime, Any]] = field(default_factory=dict)
    suspended: bool = False
    down: bool = False
    rotations: int = 0

    def __post_init__(self) -> None:
        self.secrets.append(Secret("secret-0", self.now, self.now + LIFE))

    def works(self, text: str) -> bool:
        return any(secret.text == text and self.now < secret.expires for secret in self.secrets)

    def call(self, call: Call) -> Any:
        if self.down:
            raise Unavailable(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "Down.")
        if call.method == "IssueToken":
            return self.issue(call.request)
        assert call.method == "RotateSecret"
        return self.rotate(call.request, dict(call.metadata)["authorization"])

    def authenticated(self, text: str) -> Secret:
        if self.suspended or not self.works(text):
            raise InvalidClient(grpc.StatusCode.UNAUTHENTICATED, "INVALID_CLIENT", "No.")
        secret = next(each for each in self.secrets if each.text == text)
        secret.used = True
        return secret

    def issue(self, request: tokens_pb.IssueTokenRequest) -> tokens_pb.IssueTokenResponse:
        secret = self.authenticated(request.client_secret)
        answer = tokens_pb.IssueTokenResponse(access_token="token", expires_in=1800)
        answer.secret_expire_time.FromDatetime(secret.expires)
        return answer

    def rotate(self, request: accounts_pb.RotateSecretRequest, basic: str) -> accounts_pb.RotateSecretResponse:
        texts = [each.text for each in self.secrets]
        self.authenticated(next((text for text in texts if basic_authorization(ME, text) == basic), "unknown"))
        if request.request_id in self.answers:
            since, answer = self.answers[request.request_id]
            if answer is None or self.now - since > REPLAYED_FOR:
                raise AlreadyExists(grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_SPENT", "Done.")
            return answer  # type: ignore[no-any-return]
        live = [each for each in self.secrets if self.now < each.expires]
        if len(live) == 2:
            unused = [each for each in live if not each.used]
            if not unused:
                raise FailedPrecondition(grpc.StatusCode.FAILED_PRECONDITION, "TWO_LIVE_SECRETS", "Two.")
            live.remove(unused[0])
        (old,) = live
        old.expires = min(old.expires, self.now + request.overlap.ToTimedelta())
        self.rotations += 1
        new = Secret(f"secret-{self.rotations}", self.now, self.now + LIFE)
        self.secrets = [new, old]
        self.answers = {key: (since, None) for key, (since, _) in self.answers.items()}
        made = accounts_pb.RotateSecretResponse(client_secret=new.text)
        made.secret_expire_time.FromDatetime(new.expires)
        made.service_account.secrets.add().create_time.FromDatetime(new.made)
        self.answers[request.request_id] = (self.now, made)
        return made


class Shelf:
    """A store in memory."""

    def __init__(self) -> None:
        self.document = Document(ME, "secret-0", secret_create_time=START, secret_expire_time=START + LIFE)
        self.version = 0
        self.written: list[Document] = []

    def read(self) -> tuple[Document, str]:
        return self.document, str(self.version)

    def replace(self, document: Document, version: str) -> bool:
        if version != str(self.version):
            return False
        self.document, self.version = document, self.version + 1
        self.written.append(document)
        return True


class Replica:
    """One process: what it is at can be stopped after any step, for ever or for a while."""

    def __init__(self, service: Service, shelf: Shelf, *, seed: int = 0, **policy: Any) -> None:
        self.service = service
        self.rotation = SelfRotation(
            shelf,
            Exchanges(),
            SelfRotationPolicy(**policy),
            random=random.Random(seed).random,
            now=lambda: service.now,
        )
        self._running: Any = None
        self._next: tuple[str, Any] = ("send", None)
        self.outcome: bool | Exception | None = None

    def begin(self, *, again: bool = True) -> None:
        self._running = self.rotation.rotate(again=again)
        self._next = ("send", None)
        self.outcome = None

    @property
    def busy(self) -> bool:
        return self._running is not None

    def step(self) -> Step | None:
        """Takes the next step, and says which; None when there is none left."""
        try:
            step: Step = getattr(self._running, self._next[0])(self._next[1])
        except StopIteration as done:
            self.outcome, self._running = done.value, None
            return None
        except (IdentityError, CredentialsError) as error:
            self.outcome, self._running = error, None
            return None
        try:
            match step:
                case Call():
                    self._next = ("send", self.service.call(step))
                case Work():
                    self._next = ("send", step.function())
                case Pause():
                    self._next = ("send", None)
        except IdentityError as error:
            self._next = ("throw", error)
        return step

    def steps(self) -> Iterator[Step]:
        while (step := self.step()) is not None:
            yield step

    def run(self, *, again: bool = True) -> bool | Exception | None:
        self.begin(again=again)
        for _ in self.steps():
            pass
        return self.outcome


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
    has rotated, and has two thirds of what is left to bring the new secret."""
    rotation = Replica(service, shelf).rotation
    assert not rotation.due(shelf.document)
    answer = tokens_pb.IssueTokenResponse()
    answer.secret_expire_time.FromDatetime(START + timedelta(hours=20))
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


class Machine(RuleBasedStateMachine):
    """Three replicas that begin, stall, die and are replaced in any order, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.service, self.shelf = Service(), Shelf()
        self.service.secrets[0].used = True
        self.seed = 0
        self.replicas = [self.fresh() for _ in range(3)]
        self.since = timedelta(0)

    def fresh(self) -> Replica:
        self.seed += 1
        return Replica(self.service, self.shelf, seed=self.seed)

    @rule(index=st.integers(0, 2), again=st.booleans())
    def begin(self, index: int, again: bool) -> None:
        if not self.replicas[index].busy:
            self.replicas[index].begin(again=again)

    @rule(index=st.integers(0, 2), count=st.integers(1, 5))
    def go_on(self, index: int, count: int) -> None:
        for _ in range(count):
            if self.replicas[index].busy:
                self.replicas[index].step()

    @rule(index=st.integers(0, 2))
    def die(self, index: int) -> None:
        self.replicas[index] = self.fresh()

    @precondition(lambda self: self.since < timedelta(hours=20))
    @rule(passed=st.sampled_from([timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=11)]))
    def wait(self, passed: timedelta) -> None:
        self.service.now += passed
        self.since += passed

    @rule(down=st.booleans())
    def outage(self, down: bool) -> None:
        self.service.down = down

    @rule()
    def all_end(self) -> None:
        """A replica that is left alone ends what is there: afterwards there is no claim, and a day may pass."""
        self.service.down = False
        self.service.now += timedelta(minutes=2)
        self.replicas = [self.fresh() for _ in range(3)]
        outcome = self.replicas[0].run(again=False)
        assert not isinstance(outcome, Exception) or isinstance(outcome, FailedPrecondition)
        assert self.shelf.document.rotation is None
        self.service.now += timedelta(hours=25)
        self.since = timedelta(0)

    @invariant()
    def the_secret_works(self) -> None:
        assert self.service.works(self.shelf.document.client_secret), "locked out"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
