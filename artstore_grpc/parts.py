"""The parts of a service, between the store and the doors: each built once, top to bottom, closed with the stack."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from artstore_grpc import instruments
from artstore_grpc.accounts import Accounts
from artstore_grpc.assertions import Assertions, StoredUsedAssertions
from artstore_grpc.attempts import Attempts
from artstore_grpc.audiences import Audiences
from artstore_grpc.audit import Audit
from artstore_grpc.authentication import Authenticator
from artstore_grpc.census import Census
from artstore_grpc.changes import Changes
from artstore_grpc.client_certificates import ClientCertificates
from artstore_grpc.deliveries import Deliveries
from artstore_grpc.denials import Denials
from artstore_grpc.ephemeral.announcements import RedisAnnouncements
from artstore_grpc.ephemeral.back_off import MemoryBackOff
from artstore_grpc.ephemeral.counted import CountedLimiter
from artstore_grpc.ephemeral.memory import MemoryLimiter
from artstore_grpc.ephemeral.probe import RedisProbe
from artstore_grpc.ephemeral.protocol import BackOff, Limiter, UsedAssertions
from artstore_grpc.ephemeral.redis import RedisLimiter
from artstore_grpc.ephemeral.redis_back_off import RedisBackOff
from artstore_grpc.ephemeral.used_assertions import RedisUsedAssertions
from artstore_grpc.failures import Failures
from artstore_grpc.imports import Imports
from artstore_grpc.key_encryption import KeyEncryption
from artstore_grpc.key_policy import KeyPolicy
from artstore_grpc.keys import Keyring
from artstore_grpc.notary import Notary
from artstore_grpc.pipeline import Pipeline
from artstore_grpc.refusals import Refusals
from artstore_grpc.replays import Replays
from artstore_grpc.replica import Replica, nothing
from artstore_grpc.revocations import Revocations
from artstore_grpc.rotation import Rotation
from artstore_grpc.rotation_plan import RotationPlan
from artstore_grpc.rotations import UNSEEN
from artstore_grpc.rpc.audit_service import AuditService
from artstore_grpc.rpc.descriptors import SERVICES
from artstore_grpc.rpc.health import Health
from artstore_grpc.rpc.key_service import KeyService
from artstore_grpc.rpc.methods import methods
from artstore_grpc.rpc.service_account_service import ServiceAccountService
from artstore_grpc.rpc.token_service import TokenService
from artstore_grpc.scheduled_rotation import ScheduledRotation
from artstore_grpc.secrets import Hasher
from artstore_grpc.settings import Settings
from artstore_grpc.signing_keys import SigningKeys
from artstore_grpc.sinks import configuration
from artstore_grpc.sinks.configuration import Sinks
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.telemetry.catalogue import Cache
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.telemetry.metrics import Metrics
from artstore_grpc.tokens import Tokens
from artstore_grpc.traced import TracedPipeline
from artstore_grpc.usage import Usage
from artstore_grpc.vault import Vault
from artstore_grpc.watches import Watches

if TYPE_CHECKING:  # OpenTelemetry is imported only where traces are on
    from artstore_grpc.telemetry.traces import Traces


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything between the store and the doors."""

    store: SqlStore
    encryption: KeyEncryption
    vault: Vault
    keyring: Keyring
    notary: Notary
    replica: Replica
    announcements: RedisAnnouncements | None
    watches: Watches
    usage: Usage
    denials: Denials
    hasher: Hasher
    accounts: Accounts
    pipeline: Pipeline
    health: Health
    metrics: Metrics
    changed: asyncio.Event
    """Set when the database went away or came back."""
    signing_keys: SigningKeys
    sinks: Sinks
    rotation: Rotation
    scheduled_rotation: ScheduledRotation
    census: Census
    probe: RedisProbe | None


def utc_now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def parts(
    settings: Settings,
    encryption: KeyEncryption,
    issuer: str,
    logger: Logger,
    now: Callable[[], datetime] = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
    sinks: Sinks | None = None,
    metrics: Metrics | None = None,
    traces: Traces | None = None,
) -> AsyncIterator[Parts]:
    """Builds the parts and closes them; nothing is read from the store yet. `sinks` are those that the settings name,
    unless they are given; `metrics` may be given by who reads them, and `traces` is what records calls, if
    anything does."""
    async with AsyncExitStack() as stack:
        store = SqlStore(settings.store_url, pool_size=settings.database_pool_size)
        stack.push_async_callback(store.close)
        stack.push_async_callback(encryption.close)
        if sinks is None:
            sinks = configuration.read(settings.sinks_file, now=now) if settings.sinks_file else Sinks()
        stack.push_async_callback(sinks.close)
        vault = Vault()
        limiter, failures = limiting(settings, stack, logger), failing(settings, stack, logger)
        changed = asyncio.Event()
        metrics = metrics or Metrics()
        hasher = Hasher(cost=settings.bcrypt_cost, threads=settings.bcrypt_threads, queue=settings.bcrypt_queue)
        stack.callback(hasher.close)
        announcements = announcing(settings, stack, logger)
        keys = policy_of(settings)
        keyring = Keyring(
            store,
            vault,
            now,
            algorithm=settings.signing_algorithm,
            issuer=issuer,
            token_lifetime_seconds=keys.token_lifetime_seconds,
            logger=logger,
        )
        replica = Replica(
            store,
            now,
            outage_window=settings.outage_window,
            monotonic=monotonic,
            on_change=changed.set,
            on_keys=keyring.reload,
            announce=announcements.announce if announcements else nothing,
        )
        stack.push_async_callback(replica.close)
        signing_keys = SigningKeys(store=store, keyring=keyring, replica=replica, vault=vault, policy=keys, now=now)
        notary = Notary(store, vault, now, logger, holder=uuid.uuid4().hex)
        usage = Usage(store)
        audiences = Audiences(settings.audience, issuer)
        attempts = Attempts(store=store, replica=replica, hasher=hasher, failures=failures, now=now)
        refusals = Refusals(replica, failures)
        used: UsedAssertions = StoredUsedAssertions(store, replica)
        if settings.redis_url:
            used = RedisUsedAssertions(settings.redis_url)
        stack.push_async_callback(used.close)
        assertions = Assertions(replica=replica, used=used, limiter=limiter, refusals=refusals, issuer=issuer, now=now)
        authenticator = Authenticator(
            replica=replica,
            keyring=keyring,
            vault=vault,
            attempts=attempts,
            assertions=assertions,
            certificates=ClientCertificates(replica=replica, refusals=refusals, now=now),
            usage=usage,
            issuer=issuer,
            audience=settings.audience,
            now=now,
        )
        tokens = Tokens(
            store=store,
            replica=replica,
            keyring=keyring,
            authenticator=authenticator,
            audiences=audiences,
            lifetime=settings.token_lifetime,
            now=now,
        )
        changes = Changes(store=store, replica=replica, replays=Replays(vault), now=now)
        accounts = Accounts(
            store=store,
            changes=changes,
            hasher=hasher,
            vault=vault,
            environment=settings.environment,
            sinks=sinks,
            now=now,
        )
        deliveries = Deliveries(vault=vault, sinks=sinks, issuer=issuer, logger=logger, now=now)
        rotation = Rotation(changes=changes, hasher=hasher, usage=usage, deliveries=deliveries, now=now)
        imports = Imports(
            store=store, replica=replica, accounts=accounts, changes=changes, audiences=audiences, now=now
        )
        idle = settings.token_lifetime + UNSEEN
        scheduled_rotation = ScheduledRotation(
            store=store,
            replica=replica,
            hasher=hasher,
            deliveries=deliveries,
            idle=idle,
            metrics=metrics,
            logger=logger,
            now=now,
        )
        plan = RotationPlan(store=store, vault=vault, idle=idle, now=now)
        watches = Watches(replica, keyring, now, max_streams=settings.max_streams)
        revocations = Revocations(replica, keyring, now, issuer=issuer)
        token_service = TokenService(
            tokens,
            keyring,
            signing_keys,
            watches,
            revocations,
            metrics,
            issuer,
            settings.trusted_proxies,
            binds=settings.grpc_mtls_address is not None,
        )
        servicers: dict[str, object] = {
            "TokenService": token_service,
            "ServiceAccountService": ServiceAccountService(
                accounts, rotation, imports, scheduled_rotation, plan, audiences, metrics, now
            ),
            "KeyService": KeyService(signing_keys),
            "AuditService": AuditService(Audit(store, vault, notary)),
        }
        denials = Denials(store, now)
        census = Census(store, now)
        probe = probing(settings, stack)
        pipeline_of: Callable[..., Pipeline] = partial(TracedPipeline, traces) if traces else Pipeline
        pipeline = pipeline_of(
            methods=methods(servicers),
            authenticator=authenticator,
            limiter=limiter,
            replica=replica,
            vault=vault,
            denials=denials,
            metrics=metrics,
            logger=logger,
            max_in_flight=settings.max_in_flight,
        )
        health = Health(tuple(service.full_name for service in SERVICES))
        made = Parts(
            store=store,
            encryption=encryption,
            vault=vault,
            keyring=keyring,
            replica=replica,
            announcements=announcements,
            watches=watches,
            usage=usage,
            denials=denials,
            hasher=hasher,
            accounts=accounts,
            pipeline=pipeline,
            health=health,
            metrics=metrics,
            changed=changed,
            signing_keys=signing_keys,
            rotation=rotation,
            scheduled_rotation=scheduled_rotation,
            notary=notary,
            sinks=sinks,
            census=census,
            probe=probe,
        )
        caches = {
            Cache.ACCOUNTS: replica.lookups,
            Cache.SECRET_TAGS: authenticator.tags,
            Cache.VERIFIED_TOKENS: keyring.lookups,
            Cache.GRANTS: tokens.lookups,
            Cache.ASSERTION_KEYS: assertions.lookups,
            Cache.INTROSPECTIONS: token_service.lookups,
        }
        limiters = {"account": limiter.decisions, "back_off": failures.decisions}
        instruments.bind_calls(metrics, pipeline=pipeline, hasher=hasher, caches=caches, limiters=limiters)
        instruments.bind_knowledge(
            metrics, replica=replica, notary=notary, watches=watches, keys=signing_keys, census=census
        )
        instruments.bind_dependencies(metrics, replica=replica, connections=store.connections, probe=probe)
        yield made


def policy_of(settings: Settings) -> KeyPolicy:
    """The settings that decide the life of signing keys."""
    return KeyPolicy(**{each.name: getattr(settings, each.name) for each in fields(KeyPolicy)})


def limiting(settings: Settings, stack: AsyncExitStack, logger: Logger) -> CountedLimiter:
    """What counts the calls of accounts, shared through Redis where there is one."""
    made: Limiter = MemoryLimiter(processes=settings.workers)
    if settings.redis_url:
        made = RedisLimiter(settings.redis_url, fallback=MemoryLimiter(), logger=logger)
    stack.push_async_callback(made.close)
    return CountedLimiter(made)


def failing(settings: Settings, stack: AsyncExitStack, logger: Logger) -> Failures:
    """What counts failed authentications, shared likewise."""
    back_off: BackOff = MemoryBackOff(processes=settings.workers)
    if settings.redis_url:
        back_off = RedisBackOff(settings.redis_url, fallback=MemoryBackOff(), logger=logger)
    stack.push_async_callback(back_off.close)
    return Failures(back_off, free_of_source=settings.source_failures)


def probing(settings: Settings, stack: AsyncExitStack) -> RedisProbe | None:
    """What finds out whether Redis answers; None where there is none."""
    if not settings.redis_url:
        return None
    made = RedisProbe(settings.redis_url)
    stack.push_async_callback(made.close)
    return made


def announcing(settings: Settings, stack: AsyncExitStack, logger: Logger) -> RedisAnnouncements | None:
    """What wakes the other processes after a write; None where there is no Redis."""
    if not settings.redis_url:
        return None
    made = RedisAnnouncements(settings.redis_url, logger)
    stack.push_async_callback(made.close)
    return made
