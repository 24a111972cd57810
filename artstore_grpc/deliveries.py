"""How a new secret gets to its account's sink: sealed until then, tried again and again, given up in the end.

A sink may be asked twice to take the same secret, never to take another one in its place that was not made for it: the
text is sealed once, with the secret's hash in one transaction. Whoever opens it delivers the same.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from artstore_grpc.errors import FailedPrecondition
from artstore_grpc.key_policy import LAG
from artstore_grpc.model import DELIVERY, Account, PendingDelivery, Secret
from artstore_grpc.secrets import NewSecret
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.sinks.protocol import Delivery, Sink, SinkFailed
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.vault import Vault, WrongKey

ATTEMPT_TIMEOUT = timedelta(seconds=10)
"""More than the sinks take by themselves, each of which ends what it has begun in order (sinks/exchange.py)."""
FIRST_BACKOFF = timedelta(seconds=30)
MAX_BACKOFF = timedelta(hours=1)
MAX_DOUBLINGS = 10
MAX_RETRY_AFTER = timedelta(days=1)
MAX_ERROR_LENGTH = 300


class SinkSilent(SinkFailed):
    """A sink that did not answer in time."""


class Deliveries:
    """Seals new secrets, and takes them to the sinks. Stores nothing."""

    def __init__(
        self,
        *,
        vault: Vault,
        sinks: Sinks,
        issuer: str,
        logger: Logger,
        now: Callable[[], datetime],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._vault = vault
        self._sinks = sinks
        self._issuer = issuer
        self._logger = logger
        self._now = now
        self._chance = chance

    def sink_of(self, account: Account) -> Sink:
        """The sink of an account's policy. Raises FailedPrecondition where the settings have it no longer."""
        sink = self._sinks.get(account.rotation_policy.sink)
        if sink is None:
            raise FailedPrecondition("The settings have no sink of the policy's name.", reason="SINK_UNKNOWN")
        return sink

    def sealed(self, account: Account, made: NewSecret, secret: Secret) -> PendingDelivery:
        """What is to be delivered to an account that has `secret` beside those it had. It is given up when the last of
        these ends: then nothing works any more that its users have. Where none is live, when it ends itself.

        It is not delivered before every replica knows it: a client may use it in the same moment, at any of them."""
        now = self._now()
        others = [old.expire_time for old in account.live_secrets(now) if old.id != secret.id]
        text = self._vault.seal(made.text.encode(), DELIVERY, secret.id)
        give_up_time = max(others, default=secret.expire_time)
        return PendingDelivery(secret.id, text, now, give_up_time, next_attempt_time=now + LAG)

    async def attempt(self, account: Account) -> None:
        """Takes an account's pending secret to its sink, once. Raises SinkFailed."""
        pending = account.delivery
        assert pending is not None
        (secret,) = [each for each in account.secrets if each.id == pending.secret_id]
        delivery = Delivery(
            account_id=account.id,
            client_id=account.client_id,
            client_secret=self._opened(pending),
            secret_id=secret.id,
            secret_expire_time=secret.expire_time,
            issuer=self._issuer,
            destination=account.rotation_policy.destination,
        )
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT.total_seconds()):
                await self.sink_of(account).deliver(delivery)
        except SinkFailed:
            raise
        except FailedPrecondition as error:
            raise SinkFailed(error.message) from None
        except TimeoutError:
            raise SinkSilent("The sink took too long.") from None
        except Exception:
            self._logger.exception("sink failed unexpectedly", sink=account.rotation_policy.sink)
            raise SinkFailed("The sink failed unexpectedly; the log has the error.") from None

    def after(self, failure: SinkFailed, pending: PendingDelivery) -> PendingDelivery:
        """The delivery after an attempt that failed: tried again twice as late as the time before, a little earlier or
        later than all the others whose sink is down, and not before the sink wants it."""
        doubled = FIRST_BACKOFF * 2 ** min(pending.attempts, MAX_DOUBLINGS)
        wait = min(doubled, MAX_BACKOFF) * (0.5 + self._chance() / 2)
        wait = max(wait, min(failure.retry_after or wait, MAX_RETRY_AFTER))
        error = " ".join(failure.message.split())[:MAX_ERROR_LENGTH]
        return replace(pending, attempts=pending.attempts + 1, next_attempt_time=self._now() + wait, last_error=error)

    def _opened(self, pending: PendingDelivery) -> str:
        try:
            return self._vault.open(pending.sealed, DELIVERY, pending.secret_id).decode()
        except WrongKey:
            raise SinkFailed("What was sealed can't be opened under this root key.", permanent=True) from None
