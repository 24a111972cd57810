"""How secrets change hands: made, overlapped, ended. At most two secrets of an account are live.

A service rotates its own secret by authenticating with that secret or its key, never with an access token: a stolen
token must not become a lasting credential. Nobody resets the credentials of an account that holds a scope they lack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from artstore_grpc import fields, rotations, secrets
from artstore_grpc.call import Caller
from artstore_grpc.changes import Changes, Target, check, require_scopes, voided
from artstore_grpc.deliveries import Deliveries
from artstore_grpc.errors import FailedPrecondition, InvalidClient, NotFound, PermissionDenied, invalid
from artstore_grpc.model import MAX_LIVE_SECRETS, Account, RotationMode, Secret, State
from artstore_grpc.records import EventKind
from artstore_grpc.replays import Answer, Retry
from artstore_grpc.secrets import Hasher, NewSecret
from artstore_grpc.store.protocol import Unit
from artstore_grpc.usage import Usage


async def new_secret(hasher: Hasher, now: Callable[[], datetime], account: Account) -> tuple[NewSecret, Secret]:
    """A fresh secret for an account, as shown once and as stored. Raises Overloaded when hashes queue up."""
    made = secrets.generate()
    hashed = await hasher.hash(made.text)
    time = now()
    return made, Secret(made.id, hashed, time, rotations.secret_expire_time(account, time))


def kept_beside(live: tuple[Secret, ...]) -> tuple[Secret, ...]:
    """Those of an account's live secrets that may live on beside a new one: the newest, or with two live the one that
    was used. Raises FailedPrecondition when both were."""
    if len(live) < MAX_LIVE_SECRETS:
        return live
    unused = [secret for secret in live if not rotations.in_use(secret)]
    if not unused:
        raise FailedPrecondition(
            "Two secrets are live and both were used; revoke one first.",
            reason="TWO_LIVE_SECRETS",
        )
    return tuple(secret for secret in live if secret is not unused[0])[:1]


def outlived(kept: tuple[Secret, ...], overlap: timedelta, now: datetime) -> tuple[Secret, ...]:
    """Old secrets whose users have the new one: they live on for the overlap, never past their own expiry."""
    ends = now + overlap
    return tuple(replace(s, expire_time=min(s.expire_time, ends), replace_time=now) for s in kept) if overlap else ()


class Rotation:
    """The rules of rotating and revoking secrets."""

    def __init__(
        self,
        *,
        changes: Changes,
        hasher: Hasher,
        usage: Usage,
        deliveries: Deliveries,
        now: Callable[[], datetime],
    ) -> None:
        self._changes = changes
        self._deliveries = deliveries
        self._hasher = hasher
        self._usage = usage
        self._now = now

    async def rotate_secret(
        self,
        target: Target,
        caller: Caller,
        overlap: timedelta | None,
        retry: Retry | None = None,
        *,
        revoke_tokens: bool = False,
    ) -> Answer:
        """A new secret; the newest of the old ones lives on for `overlap`, by default the policy's, and with
        `revoke_tokens` no token that was issued before. Raises FailedPrecondition when two that were used are live,
        PermissionDenied for an account's own access token."""
        overlap = overlap if overlap is None else fields.overlap(overlap)
        if revoke_tokens and overlap != timedelta(0):
            raise invalid("revoke_tokens", "needs an overlap of 0")  # the old secret would only get new ones
        current = await self._changes.get(target.id)
        self._may_rotate(caller, current)
        if retry is not None and (before := await self._changes.before(retry)) is not None:
            return before
        check(target, current)
        kept_beside(current.live_secrets(self._now()))  # refuses before a hash is computed for what would be refused
        await self._usage.flush()
        made, secret = await new_secret(self._hasher, self._now, current)

        async def rotate(unit: Unit) -> Answer:
            previous: tuple[Secret, ...] = ()

            async def change(unit: Unit, account: Account) -> Account:
                nonlocal previous
                self._may_rotate(caller, account)
                self._still_proved(caller, account)
                beside = account.rotation_policy.overlap if overlap is None else overlap
                detail["overlap_seconds"] = int(beside.total_seconds())
                kept, previous = self._kept(account, beside)
                await unit.void_replays(account.id)
                fresh = replace(secret, expire_time=rotations.secret_expire_time(account, secret.create_time))
                rotated = rotations.scheduled(replace(account, secrets=(fresh, *kept)), self._now())
                if account.rotation_policy.mode is RotationMode.MANAGED:  # its users get it from the sink as ever
                    rotated = replace(rotated, delivery=self._deliveries.sealed(rotated, made, fresh))
                if not revoke_tokens:
                    return rotated
                detail["epoch"] = account.epoch + 1
                await unit.drop_revocations(
                    account.id
                )  # of tokens that are void now; counted, they would void the next
                return voided(rotated, self._now())

            detail: dict[str, Any] = {"secret_id": secret.id}
            account = await self._changes.change(unit, target, caller, EventKind.SECRET_ROTATED, change, detail=detail)
            return Answer(account, account.secrets[0], made.text, previous)

        return await self._changes.answered(rotate, retry)

    async def revoke_secret(self, target: Target, secret_id: str, caller: Caller) -> Account:
        """Ends a secret now. Raises NotFound for one that the account doesn't have."""

        async def change(unit: Unit, account: Account) -> Account:
            kept = tuple(secret for secret in account.secrets if secret.id != secret_id)
            if len(kept) == len(account.secrets):
                raise NotFound("The account has no such secret.", reason="SECRET_NOT_FOUND")
            require_scopes(caller, account)
            if not kept and account.id == caller.account.id:
                raise FailedPrecondition("An account can't revoke its own last secret.", reason="OWN_ACCOUNT")
            await unit.void_replays(account.id)
            return rotations.sooner(replace(account, secrets=kept), self._now())

        if not secret_id:
            raise invalid("secret_id", "is missing")
        detail = {"secret_id": secret_id}
        return await self._changes.changed(target, caller, EventKind.SECRET_REVOKED, change, detail=detail)

    def _may_rotate(self, caller: Caller, account: Account) -> None:
        """With a secret or a key one's own only; with a token another's only, and none that holds a scope the caller
        lacks."""
        own = account.id == caller.account.id
        if not caller.by_token:
            if not own:
                raise PermissionDenied("A secret rotates only its own account's.", reason="NOT_YOUR_ACCOUNT")
            return
        if own:
            raise PermissionDenied(
                "An account rotates its own secret with that or with its key, not with a token.",
                reason="SECRET_REQUIRED",
            )
        require_scopes(caller, account)

    def _still_proved(self, caller: Caller, account: Account) -> None:
        """A secret that was revoked, or whose account was suspended, since it was checked makes no successor; nor does
        a key."""
        if caller.by_token:
            return
        now = self._now()
        by_secret = any(secret.id == caller.secret_id for secret in account.live_secrets(now))
        by_key = any(key.thumbprint == caller.key_thumbprint for key in account.public_keys)
        if not (by_secret or by_key) or account.state(now) is not State.ACTIVE:
            raise InvalidClient(cause=f"the secret or its account ended meanwhile: {account.client_id}")

    def _kept(self, account: Account, overlap: timedelta) -> tuple[tuple[Secret, ...], tuple[Secret, ...]]:
        """Which old secrets live on beside a new one (at most one), and all that the rotation ended or shortened."""
        now = self._now()
        live = account.live_secrets(now)
        return outlived(kept_beside(live)[:1], overlap, now), live
