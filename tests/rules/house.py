"""The use cases of the service over one real store, wired as `app.py` does it but without doors; time is the test's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from artstore_grpc.accounts import Accounts
from artstore_grpc.assertions import Assertions, StoredUsedAssertions
from artstore_grpc.attempts import Attempts
from artstore_grpc.authentication import Authenticator
from artstore_grpc.changes import Changes
from artstore_grpc.client_certificates import ClientCertificates
from artstore_grpc.deliveries import Deliveries
from artstore_grpc.ephemeral.back_off import MemoryBackOff
from artstore_grpc.ephemeral.memory import MemoryLimiter
from artstore_grpc.failures import Failures
from artstore_grpc.keys import Keyring
from artstore_grpc.model import Environment
from artstore_grpc.refusals import Refusals
from artstore_grpc.replays import Replays
from artstore_grpc.replica import Replica
from artstore_grpc.rotation import Rotation
from artstore_grpc.secrets import Hasher
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.telemetry.logs import configured
from artstore_grpc.usage import Usage
from artstore_grpc.vault import Vault

ISSUER = "http://issuer.test"


def patient() -> Failures:
    """Failures whose sources are never slowed, since a test has one; secrets are."""
    return Failures(MemoryBackOff(), free_of_source=1_000_000)


class CountingHasher(Hasher):
    """A real hasher at the least cost, which remembers what it was asked to check."""

    def __init__(self, checked: list[str]) -> None:
        super().__init__(cost=4, threads=1, queue=32)
        self.checked = checked

    async def matches(self, text: str, hashed: str) -> bool:
        self.checked.append(text)
        return await super().matches(text, hashed)


@dataclass(frozen=True)
class House:
    """One process's memory over a store that several share."""

    store: SqlStore
    replica: Replica
    hasher: CountingHasher
    usage: Usage
    accounts: Accounts
    rotation: Rotation
    authenticator: Authenticator


async def opened(store: SqlStore, vault: Vault, now: Callable[[], datetime], checked: list[str]) -> House:
    """A process that has just started: it remembers nothing, and stands where the ledger stands."""
    replica = Replica(store, now, outage_window=timedelta(minutes=5))
    usage, hasher = Usage(store), CountingHasher(checked)
    changes = Changes(store=store, replica=replica, replays=Replays(vault), now=now)
    shared: dict[str, Any] = {"hasher": hasher, "now": now}
    deliveries = Deliveries(vault=vault, sinks=Sinks(), issuer=ISSUER, logger=configured("error"), now=now)
    refusals = Refusals(replica, patient())
    authenticator = Authenticator(
        replica=replica,
        keyring=Keyring(store, vault, now, algorithm="RS256", issuer=ISSUER),
        vault=vault,
        attempts=Attempts(store=store, replica=replica, failures=patient(), **shared),
        assertions=Assertions(
            replica=replica,
            used=StoredUsedAssertions(store, replica),
            limiter=MemoryLimiter(),
            refusals=refusals,
            issuer=ISSUER,
            now=now,
        ),
        certificates=ClientCertificates(replica=replica, refusals=refusals, now=now),
        usage=usage,
        issuer=ISSUER,
        audience="artstore",
        now=now,
    )
    accounts = Accounts(store=store, changes=changes, vault=vault, environment=Environment.DEV, sinks=Sinks(), **shared)
    await replica.load()
    return House(
        store,
        replica,
        hasher,
        usage,
        accounts,
        Rotation(changes=changes, usage=usage, deliveries=deliveries, **shared),
        authenticator,
    )
