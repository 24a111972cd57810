"""Binds the metrics to the parts that they are read from. Every read is of plain numbers, in the scrape's thread."""

from __future__ import annotations

import math
from collections.abc import Mapping

from artstore_grpc.census import Census
from artstore_grpc.counters import Decisions, Lookups
from artstore_grpc.pipeline import Pipeline
from artstore_grpc.replica import Replica
from artstore_grpc.secrets import Hasher
from artstore_grpc.telemetry.catalogue import Cache
from artstore_grpc.telemetry.metrics import Metrics, Series
from artstore_grpc.watches import Watches


def bind(
    metrics: Metrics, *, pipeline: Pipeline, hasher: Hasher, replica: Replica, watches: Watches, census: Census
) -> None:
    """What is read from the parts themselves."""
    metrics.read_from("artstore_calls_in_flight", lambda: pipeline.in_flight)
    metrics.read_from("artstore_bcrypt_queue_depth", lambda: hasher.pending)
    metrics.spread_from("artstore_bcrypt_duration_seconds", lambda: {(): hasher.durations})
    metrics.read_from("artstore_bcrypt_rejections_total", lambda: hasher.rejected)
    metrics.read_from("artstore_feed_subscribers", lambda: watches.count)
    metrics.read_from("artstore_ledger_sequence", lambda: replica.sequence)
    metrics.read_from("artstore_ledger_lag_seconds", lambda: lag_of(replica))
    metrics.read_from("artstore_database_up", lambda: float(replica.outage_since is None))
    metrics.read_from("artstore_secrets_expiring_7_days", lambda: census.secrets_expiring)
    metrics.read_from("artstore_secret_deliveries_pending", lambda: census.deliveries_pending)
    metrics.read_from("artstore_degraded", lambda: float(replica.outage))


def lag_of(replica: Replica) -> float | None:
    """None until the ledger was read once."""
    seconds = replica.staleness_seconds
    return None if math.isinf(seconds) else seconds


def cached(caches: Mapping[Cache, Lookups]) -> Series:
    """Look-ups by cache and outcome."""
    found: dict[tuple[str, ...], float] = {}
    for cache, lookups in caches.items():
        found[cache.value, "hit"], found[cache.value, "miss"] = lookups.hits, lookups.misses
    return found


def decided(limiters: Mapping[str, Decisions]) -> Series:
    """Decisions by limiter."""
    found: dict[tuple[str, ...], float] = {}
    for limiter, decisions in limiters.items():
        for decision in Decisions.__slots__:
            found[limiter, decision] = getattr(decisions, decision)
    return found
