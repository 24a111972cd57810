"""One account of the service, a store, and replicas, as models that keep the real ones' rules.

A replica can be stopped after any step, for ever or for a while.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
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
from artstore.identity.exchanges import Exchanges
from artstore.identity.steps import Call, Pause, Step, Work
from artstore.identity.v1 import service_account_service_pb2 as accounts_pb
from artstore.identity.v1 import token_service_pb2 as tokens_pb

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
    """One account of the service: its secrets and their rules (RotateSecret in docs/api.md)."""

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
