"""How secrets change hands: made, overlapped, ended, and asked for again by `request_id` (AIP-155).

At most two secrets of an account are live. A service rotates its own by that secret or its key, never by a token.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from artstore.identity.testing import account_fields
from artstore.identity.testing.accounts import Account, Accounts, Caller, precondition, require_scopes, timestamp
from artstore.identity.testing.refusals import invalid, refused
from artstore.identity.testing.secrets import Secret, new_secret
from artstore.identity.v1 import service_account_service_pb2 as pb
from google.protobuf.message import Message

DEFAULT_OVERLAP = timedelta(hours=24)
MAX_LIVE_SECRETS = 2
ANSWERED_FOR = timedelta(minutes=10)
KNOWN_FOR = ANSWERED_FOR + timedelta(hours=24)
NOT_CONTENT = ("request_id", "client_assertion")
"""What may differ when a request is sent again."""

Answer = TypeVar("Answer", pb.CreateServiceAccountResponse, pb.RotateSecretResponse)


@dataclass
class Replay:
    """An answer that was given; None once it is void."""

    digest: bytes
    account_id: str
    time: datetime
    answer: bytes | None


class Replays:
    """What was answered to requests with a `request_id`, by caller and method."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._replays: dict[tuple[str, str, str], Replay] = {}

    def answered(
        self,
        request: pb.CreateServiceAccountRequest | pb.RotateSecretRequest,
        caller: Caller,
        kind: type[Answer],
        work: Callable[[], Answer],
    ) -> Answer:
        """The answer of the work; to a request that was carried out before, the one it got then."""
        if not request.request_id:
            return work()
        key = (caller.account.id, kind.__name__, account_fields.request_id(request.request_id))
        digest, now = digest_of(request), self._now()
        before = self._replays.get(key)
        if before is not None and now - before.time <= KNOWN_FOR:
            return kind.FromString(again(before, digest, now))
        answer = work()
        self._replays[key] = Replay(digest, answer.service_account.id, now, answer.SerializeToString())
        return answer

    def void(self, account: Account) -> None:
        """Gives no answer about this account any more: what it would say has ended."""
        for replay in self._replays.values():
            if replay.account_id == account.id:
                replay.answer = None


def digest_of(request: pb.CreateServiceAccountRequest | pb.RotateSecretRequest) -> bytes:
    content: Message = copy.copy(request)
    for name in NOT_CONTENT:
        if name in content.DESCRIPTOR.fields_by_name:
            content.ClearField(name)
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()


def again(before: Replay, digest: bytes, now: datetime) -> bytes:
    if before.digest != digest:
        message = "The request_id was used for another request."
        raise refused("INVALID_REQUEST", message, reason="REQUEST_ID_REUSED")
    if before.answer is None or now - before.time > ANSWERED_FOR:
        message = "This request was carried out; its answer is no longer kept."
        raise refused("ALREADY_EXISTS", message, reason="REQUEST_ID_SPENT")
    return before.answer


class Rotation:
    """The rules of rotating and revoking secrets."""

    def __init__(self, accounts: Accounts, replays: Replays, now: Callable[[], datetime]) -> None:
        self._accounts = accounts
        self._replays = replays
        self._now = now

    def rotate(self, request: pb.RotateSecretRequest, caller: Caller) -> pb.RotateSecretResponse:
        """RotateSecret."""
        overlap = account_fields.overlap(request.overlap) if request.HasField("overlap") else DEFAULT_OVERLAP
        if request.revoke_tokens and overlap:
            raise invalid("revoke_tokens", "needs an overlap of 0")
        may_rotate(caller, self._accounts.get(request.id))

        def work() -> pb.RotateSecretResponse:
            account = self._accounts.target(request)
            made, previous = self.rotated(account, overlap, revoke_tokens=request.revoke_tokens)
            return pb.RotateSecretResponse(
                service_account=self._accounts.message(account),
                client_secret=made.text,
                secret_expire_time=timestamp(made.expire_time),
                previous_secrets=previous,
            )

        return self._replays.answered(request, caller, pb.RotateSecretResponse, work)

    def rotated(
        self, account: Account, overlap: timedelta, *, revoke_tokens: bool = False
    ) -> tuple[Secret, list[pb.Secret]]:
        """A new secret, and the live ones of before as they were last used."""
        now = self._now()
        live = account.live_secrets(now)
        previous = [secret.message() for secret in live]
        kept = without_the_unused(live) if len(live) >= MAX_LIVE_SECRETS else live
        for secret in kept:
            secret.expire_time = min(secret.expire_time, now + overlap)
        made = new_secret(now)
        account.secrets = [made, *(kept[:1] if overlap else [])]
        account.epoch += revoke_tokens
        self._replays.void(account)
        self._accounts.save(account)
        return made, previous

    def revoke(self, request: pb.RevokeSecretRequest, caller: Caller) -> Account:
        """RevokeSecret."""
        if not request.secret_id:
            raise invalid("secret_id", "is missing")
        account = self._accounts.target(request)
        kept = [secret for secret in account.secrets if secret.id != request.secret_id]
        if len(kept) == len(account.secrets):
            raise refused("NOT_FOUND", "The account has no such secret.", reason="SECRET_NOT_FOUND")
        require_scopes(caller, account)
        if not kept and account is caller.account:
            raise precondition("An account can't revoke its own last secret.", "OWN_ACCOUNT")
        account.secrets = kept
        self._replays.void(account)
        self._accounts.save(account)
        return account


def without_the_unused(live: list[Secret]) -> list[Secret]:
    """Two that are live, without the one that was never used: it never arrived."""
    unused = [secret for secret in live if secret.last_used_time is None]
    if not unused:
        raise precondition("Two secrets are live and both were used; revoke one first.", "TWO_LIVE_SECRETS")
    return [secret for secret in live if secret is not unused[0]]


def may_rotate(caller: Caller, account: Account) -> None:
    """By a secret or a key one's own only; by a token another's only, and none that holds a scope the caller lacks."""
    own = account is caller.account
    if not caller.by_token:
        if not own:
            message = "A secret rotates only its own account's."
            raise refused("PERMISSION_DENIED", message, reason="NOT_YOUR_ACCOUNT")
        return
    if own:
        message = "An account rotates its own secret with that or with its key, not with a token."
        raise refused("PERMISSION_DENIED", message, reason="SECRET_REQUIRED")
    require_scopes(caller, account)
