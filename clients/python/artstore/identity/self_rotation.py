"""How a service replaces its own secret before it expires: the protocol, as steps (steps.py), without I/O of its own.

The store (a file, a Kubernetes Secret) is what replicas share and what survives a crash; each step is one compare and
swap there, or one call:

    (a) claim    the document gets `rotation`: a request_id, who does it, since when
    (b) ask      RotateSecret by the present secret with that request_id; the old secret lives on for the overlap
    (c) note     the new secret is written beside the old one
    (d) prove    a token is got with the new secret
    (e) promote  the new secret takes the old one's place, and the claim is gone

Whoever reads the document authenticates with the proved secret. Whoever finds a claim goes on from it: its own at
once, another's once nobody has touched it for the claim's timeout. Two that go on at once do no harm, since both send
the same request_id, get the same secret for ten minutes (AIP-155), and only one's swap succeeds. After these ten
minutes the answer is ALREADY_EXISTS: the claim gets a new request_id, and the server replaces the secret that was never
used. Where two secrets are in use the claim is taken back, and the rotation waits.

One bound is the service's: after (b) the old secret lives for the overlap. A crash between (b) and (c) loses the new
one, and some replica has to start again within the overlap to ask for another.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from artstore.identity.credentials import CredentialsError
from artstore.identity.credentials_document import Claim, CredentialsStore, Document
from artstore.identity.errors import AlreadyExists, FailedPrecondition, InvalidClient, InvalidRequest
from artstore.identity.exchanges import Exchanges, Issued
from artstore.identity.steps import Closed, Pause, Steps, Work
from artstore.identity.token_cache import Wanted
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

LOGGER = logging.getLogger("artstore.identity")

BEGIN_FRACTION = 1 / 3
"""The rotation begins when this much of a secret's life is left."""
BEGIN_BEFORE = timedelta(days=30)
"""The same where it isn't known when the secret was made: a third of the service's 90 days."""
SPREAD = 0.2
"""Up to this part of that time a replica begins later than it might, so that not all begin at once."""
MAX_SWAPS = 50
"""Of one rotation; it takes three, and one more for each replica that was faster."""


@dataclass(frozen=True, slots=True)
class SelfRotationPolicy:
    """How secrets are replaced."""

    overlap: timedelta = timedelta(hours=24)
    """How long the old secret lives on; longer than any replica works on without reading the document."""
    claim_timeout: timedelta = timedelta(minutes=1)
    """How long a claim must have been untouched before another replica takes it over."""
    check_interval: timedelta = timedelta(minutes=15)
    """How often it is looked whether a rotation is due, or was left half done; up to a fifth less at random."""

    def __post_init__(self) -> None:
        if not timedelta(0) < self.overlap <= timedelta(days=30):
            raise ValueError("overlap must be over 0 and at most 30 days: replicas need the old secret for a while.")
        if self.claim_timeout <= timedelta(0) or self.check_interval <= timedelta(0):
            raise ValueError("claim_timeout and check_interval must be positive.")


@dataclass(frozen=True, slots=True)
class Told:
    """When a secret expires, as the service said, and since when it says so."""

    client_secret: str = field(repr=False)
    expires: datetime
    since: datetime


class SelfRotation:
    """The rotation of one account's secret, as one replica takes part in it. Failures are logged, kept in `failure`,
    and tried again; they are nobody else's."""

    def __init__(
        self,
        store: CredentialsStore,
        exchanges: Exchanges,
        policy: SelfRotationPolicy,
        *,
        random: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.failure: Exception | None = None
        """What the last attempt failed with; None once one has succeeded."""
        self.rotated = 0
        """How many new secrets this replica has put in place."""
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._store = store
        self._exchanges = exchanges
        self._policy = policy
        self._random = random
        self._now = now
        self._late = 1 - SPREAD * random()
        self._told: Told | None = None

    def note(self, issued: Issued) -> None:
        """Takes in when the secret expires, as the service said with a token: it may be sooner than the document has
        it, after somebody else's rotation."""
        secret, told = issued.credentials.client_secret, self._told
        if secret and issued.answer.HasField("secret_expire_time"):
            expires = _time(issued.answer.secret_expire_time)
            if told is None or (told.client_secret, told.expires) != (secret, expires):
                self._told = Told(secret, expires, self._now())

    def due(self, document: Document) -> bool:
        """Whether the secret's end is near enough."""
        expires, made = document.secret_expire_time, document.secret_create_time
        told = self._told
        if told is not None and told.client_secret == document.client_secret:
            if expires is not None and told.expires < expires:
                # Somebody else has rotated, and has the rest of the overlap, but its last third, to bring the new one.
                made = told.since
            expires = told.expires
        if expires is None:
            return False
        before = (expires - made) * BEGIN_FRACTION if made is not None and made < expires else BEGIN_BEFORE
        return expires - self._now() <= before * self._late

    def keep_fresh(self) -> Steps[None]:
        """Rotates whenever it is due, for as long as the source is open."""
        while True:
            wait = self._policy.check_interval
            try:
                document, _ = yield Work(self._store.read)
                if document.rotation is not None:  # a replica is at it, or has died: look again soon
                    wait = min(wait, self._policy.claim_timeout)
                if document.rotation is not None or self.due(document):
                    yield from self.rotate(again=False)
                self.failure = None
            except Closed:
                raise
            except Exception as error:  # the outer edge: nothing that goes wrong here may end it
                self.failure = error
                LOGGER.warning("the secret was not rotated; tokens are got with the present one: %s", error)
            yield Pause(wait.total_seconds() * (1 - SPREAD * self._random()))

    def rotate(self, *, again: bool = True) -> Steps[bool]:
        """Carries a rotation through, from wherever it is. With `again` a new one begins though none is due. True once
        a new secret is in place, whoever put it there; False where another replica is at it, or none is due. Raises
        IdentityError, CredentialsError, and leaves what can be gone on from."""
        replaced = ""
        for _ in range(MAX_SWAPS):
            document, version = yield Work(self._store.read)
            claim = document.rotation
            replaced = replaced or document.client_secret
            if document.client_secret != replaced:
                return True  # another replica, or another thread of this one, was faster
            if claim is None:
                if not again and not self.due(document):
                    return False
                yield from self._swap(replace(document, rotation=self._claim()), version)
            elif claim.owner != self.owner:
                if not self._abandoned(claim):
                    return False
                LOGGER.warning("the rotation that %s began is gone on with", claim.owner)
                yield from self._swap(_claimed(document, owner=self.owner, started=self._now()), version)
            elif not claim.client_secret:
                yield from self._ask(document, claim, version)
            elif (yield from self._proved_and_promoted(document, claim, version)):
                self.rotated += 1
                LOGGER.info("the secret of %s was rotated", document.client_id)
                return True
        raise CredentialsError("The secret was not rotated: others write the credentials all the time.")

    def _ask(self, document: Document, claim: Claim, version: str) -> Steps[None]:
        """Steps (b) and (c)."""
        overlap = timedelta(seconds=claim.overlap_seconds)
        try:
            answer: pb.RotateSecretResponse = yield from self._exchanges.rotate(
                document.credentials, claim.request_id, overlap
            )
        except AlreadyExists:
            yield from self._begin_anew(document, version)
        except InvalidRequest as error:
            if error.reason != "REQUEST_ID_REUSED":
                yield from self._swap(replace(document, rotation=None), version)
                raise
            yield from self._begin_anew(document, version)
        except FailedPrecondition:
            yield from self._swap(replace(document, rotation=None), version)
            raise
        else:
            newest = answer.service_account.secrets[:1]
            noted = _claimed(
                document,
                client_secret=answer.client_secret,
                secret_create_time=_time(newest[0].create_time) if newest else None,
                secret_expire_time=_time(answer.secret_expire_time),
            )
            yield from self._swap(noted, version)

    def _proved_and_promoted(self, document: Document, claim: Claim, version: str) -> Steps[bool]:
        """Steps (d) and (e). A new secret that is refused, while the old one isn't, was replaced or revoked meanwhile:
        begin anew."""
        new = replace(document.credentials, client_secret=claim.client_secret)
        for _ in range(2):
            try:
                self.note((yield from self._exchanges.issue(new, Wanted())))
                return (yield from self._swap(document.promoted(), version))
            except InvalidClient:
                # A suspended account's secrets are all refused, and may all be good again tomorrow: both are kept.
                yield from self._exchanges.issue(document.credentials, Wanted())
        yield from self._begin_anew(document, version)
        return False

    def _begin_anew(self, document: Document, version: str) -> Steps[None]:
        yield from self._swap(replace(document, rotation=self._claim()), version)

    def _swap(self, document: Document, version: str) -> Steps[bool]:
        """False: somebody else wrote; the caller reads again and goes on from there."""
        swapped: bool = yield Work(lambda: self._store.replace(document, version))
        return swapped

    def _claim(self) -> Claim:
        return Claim(str(uuid4()), self._now(), self.owner, int(self._policy.overlap.total_seconds()))

    def _abandoned(self, claim: Claim) -> bool:
        """Also where it began in the future: somebody's clock is wrong, and going on does no harm."""
        return abs(self._now() - claim.started) >= self._policy.claim_timeout


def _claimed(document: Document, **changes: object) -> Document:
    assert document.rotation is not None
    return replace(document, rotation=replace(document.rotation, **changes))  # type: ignore[arg-type]


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)
