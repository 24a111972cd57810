"""Binds the metrics to the parts that they are read from. Every read is of plain numbers, in the scrape's thread."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime

from artstore_grpc.census import Census
from artstore_grpc.counters import Decisions, Lookups
from artstore_grpc.ephemeral.probe import RedisProbe
from artstore_grpc.notary import Notary
from artstore_grpc.pipeline import Pipeline
from artstore_grpc.replica import Replica
from artstore_grpc.secrets import Hasher
from artstore_grpc.signing_keys import SigningKeys
from artstore_grpc.store.connections import Connections
from artstore_grpc.telemetry.catalogue import Cache
from artstore_grpc.telemetry.metrics import Metrics, Series
from artstore_grpc.watches import Watches


def bind_calls(
    metrics: Metrics,
    *,
    pipeline: Pipeline,
    hasher: Hasher,
    caches: Mapping[Cache, Lookups],
    limiters: Mapping[str, Decisions],
) -> None:
    """What calls cost, and what they are spared or refused."""
    metrics.read_from("artstore_calls_in_flight", lambda: pipeline.in_flight)
    metrics.read_from("artstore_bcrypt_queue_depth", lambda: hasher.pending)
    metrics.spread_from("artstore_bcrypt_duration_seconds", lambda: {(): hasher.durations})
    metrics.read_from("artstore_bcrypt_rejections_total", lambda: hasher.rejected)
    metrics.read_from("artstore_cache_lookups_total", lambda: looked_up(caches))
    metrics.read_from("artstore_limiter_decisions_total", lambda: decided(limiters))


def bind_knowledge(
    metrics: Metrics, *, replica: Replica, notary: Notary, watches: Watches, keys: SigningKeys, census: Census
) -> None:
    """What this process knows of the installation, and how well."""
    metrics.read_from("artstore_ledger_sequence", lambda: replica.sequence if replica.loaded else None)
    metrics.read_from("artstore_ledger_lag_seconds", lambda: finite(replica.staleness_seconds))
    metrics.read_from("artstore_ledger_broken", lambda: float(notary.broken))
    metrics.read_from("artstore_degraded", lambda: replica.outage if replica.loaded else None)
    metrics.read_from("artstore_feed_subscribers", lambda: watches.count)
    metrics.read_from("artstore_feed_lag_seconds", lambda: watches.lag_seconds)
    metrics.read_from("artstore_signing_key_activate_timestamp_seconds", lambda: timestamp(keys.activate_time))
    metrics.read_from(
        "artstore_signing_key_next_rotation_timestamp_seconds", lambda: timestamp(keys.next_rotation) or 0
    )
    metrics.read_from("artstore_secrets_expiring_7_days", lambda: census.secrets_expiring)
    metrics.read_from("artstore_secrets_expired", lambda: census.secrets_expired)
    metrics.read_from("artstore_secret_deliveries_pending", lambda: census.deliveries_pending)


def bind_dependencies(
    metrics: Metrics, *, replica: Replica, connections: Connections, probe: RedisProbe | None
) -> None:
    """What it depends on."""
    metrics.read_from("artstore_database_up", lambda: replica.database_up)
    metrics.read_from(
        "artstore_database_pool_connections", lambda: {("in_use",): connections.in_use, ("idle",): connections.idle}
    )
    metrics.read_from("artstore_database_pool_size", lambda: connections.size)
    metrics.spread_from("artstore_database_pool_wait_seconds", lambda: {(): connections.waits})
    if probe is not None:
        metrics.read_from("artstore_redis_up", lambda: probe.up)


def finite(seconds: float) -> float | None:
    """None for what has never been."""
    return None if math.isinf(seconds) else seconds


def timestamp(time: datetime | None) -> float | None:
    """Seconds since 1970."""
    return time.timestamp() if time else None


def looked_up(caches: Mapping[Cache, Lookups]) -> Series:
    """Look-ups by cache and outcome."""
    found: dict[tuple[str, ...], float] = {}
    for cache, lookups in caches.items():
        found[cache.value, "hit"], found[cache.value, "miss"] = lookups.hits, lookups.misses
    return found


def decided(limiters: Mapping[str, Decisions]) -> Series:
    """Decisions by limiter."""
    found: dict[tuple[str, ...], float] = {}
    for limiter, made in limiters.items():
        for decision in Decisions.__slots__:
            found[limiter, decision] = getattr(made, decision)
    return found
