"""Every metric there is: its name, type, labels, meaning, and how the values of several processes become one.

The one table that the registry exposes, docs/metrics.md shows, and whoever merges processes obeys. Each label has a
closed set of values: what isn't in it is exposed as OTHER, so that no caller makes a series. Where values come from is
for metrics.py and who binds them (instruments.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version

from artstore_grpc.errors import OUTCOMES
from artstore_grpc.policy import POLICY
from artstore_grpc.rotations import Action

OTHER = "other"
"""In place of a label's value that is not in its set: a defect of ours, which must not make a series."""
UNKNOWN_METHOD = "unknown"
"""The `method` of every call to a method that there isn't."""
ISSUED = "issued"
OK = "OK"

Labels = Mapping[str, tuple[str, ...]]


class Kind(StrEnum):
    """Prometheus' types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Merge(StrEnum):
    """How the values that several processes of one machine have for a series become one."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric as it is scraped. Counters and histograms are always summed."""

    name: str
    kind: Kind
    text: str
    labels: Labels = field(default_factory=dict)
    merge: Merge = Merge.SUM


class ClientAuthentication(StrEnum):
    """How a client set out to prove itself, by RFC 8414's names; `none` where it didn't."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    ASSERTION = "private_key_jwt"
    CERTIFICATE = "tls_client_auth"
    NONE = "none"


class Cache(StrEnum):
    """What is remembered so that it needn't be read, or computed, again."""

    ACCOUNTS = "accounts"
    SECRET_TAGS = "secret_tags"
    VERIFIED_TOKENS = "verified_tokens"
    GRANTS = "grants"
    ASSERTION_KEYS = "assertion_keys"
    INTROSPECTIONS = "introspections"


def one_of(values: Iterable[str]) -> tuple[str, ...]:
    """A label's set, in order."""
    return tuple(sorted(set(values)))


METHODS = one_of((*POLICY, UNKNOWN_METHOD))
CODES = one_of((OK, *(outcome.grpc for outcome in OUTCOMES.values())))
TOKEN_OUTCOMES = one_of((ISSUED, *(outcome.oauth for outcome in OUTCOMES.values())))
DENIALS = (
    "INVALID_CLIENT",
    "INVALID_TOKEN",
    "MISSING_TOKEN",
    "TOKEN_ENDED",
    "TOO_MANY_FAILURES",
    "WRONG_AUDIENCE",
    OTHER,
)
STEP_OUTCOMES = (
    "delivery_abandoned",
    "done",
    "hashing_queue_full",
    "internal",
    "sink_failed",
    "sink_unknown",
    "two_live_secrets",
    OTHER,
)

FAMILIES = (
    Family(
        "artstore_calls_total",
        Kind.COUNTER,
        "Calls by method, door and gRPC code, over either door; a method that there isn't is `unknown`.",
        {"method": METHODS, "door": ("grpc", "http"), "code": CODES},
    ),
    Family(
        "artstore_call_duration_seconds",
        Kind.HISTOGRAM,
        "Time in the service by method, from the whole message to its answer, without what HTTP adds; a stream's is "
        "its whole life.",
        {"method": METHODS},
    ),
    Family("artstore_calls_in_flight", Kind.GAUGE, "Calls in progress; admitted streams are not among them."),
    Family(
        "artstore_token_requests_total",
        Kind.COUNTER,
        "Requests for a token by what became of them, `issued` or RFC 6749 §5.2's code, and by how the client set out "
        "to prove itself, in RFC 8414's names. Those that HTTP's token endpoints refuse themselves are among them; "
        "what can't be read as HTTP is not.",
        {"outcome": TOKEN_OUTCOMES, "client_authentication": tuple(ClientAuthentication)},
    ),
    Family(
        "artstore_tokens_issued_total",
        Kind.COUNTER,
        "Tokens issued, by mode: `outage` while the database was down.",
        {"mode": ("normal", "outage")},
    ),
    Family(
        "artstore_denials_total",
        Kind.COUNTER,
        "Refused authentications of every method, by reason.",
        {"kind": DENIALS},
    ),
    Family(
        "artstore_bcrypt_queue_depth",
        Kind.GAUGE,
        "bcrypt hashes that wait or are under way; refused past ARTSTORE_BCRYPT_THREADS + ARTSTORE_BCRYPT_QUEUE.",
    ),
    Family(
        "artstore_bcrypt_duration_seconds",
        Kind.HISTOGRAM,
        "Time that a bcrypt took in its thread, without its wait; its count is how many were computed. Whatever the "
        "check of an imported secret takes is one.",
    ),
    Family(
        "artstore_bcrypt_rejections_total",
        Kind.COUNTER,
        "bcrypt hashes that were refused because the queue, or a source's share of it, was full.",
    ),
    Family(
        "artstore_cache_lookups_total",
        Kind.COUNTER,
        "Look-ups by cache and outcome. `accounts`: in memory, or the database is asked; `secret_tags`: a tag proved "
        "the secret, else bcrypt may have to; `verified_tokens`: of bearers and introspected ones; `grants`: what a "
        "token says; `assertion_keys`: parsed public keys; `introspections`: answers.",
        {"cache": tuple(Cache), "outcome": ("hit", "miss")},
    ),
    Family(
        "artstore_limiter_decisions_total",
        Kind.COUNTER,
        "Decisions by limiter: `account` is an account's rate limit, `back_off` what failed authentications cost. "
        "`degraded`: admitted by this process's own count, since Redis did not answer.",
        {"limiter": ("account", "back_off"), "decision": ("admitted", "refused", "degraded")},
    ),
    Family(
        "artstore_ledger_sequence",
        Kind.GAUGE,
        "The last ledger row that was applied. Absent until a start has read the ledger.",
        merge=Merge.MIN,
    ),
    Family(
        "artstore_ledger_lag_seconds",
        Kind.GAUGE,
        "Time since the store was last as this process knows it: every change that was committed before then is known "
        "here. Up to a quarter of a second in good order; absent until the ledger was read once.",
        merge=Merge.MAX,
    ),
    Family(
        "artstore_ledger_broken",
        Kind.GAUGE,
        "1 when the ledger did not hold as this process was last to sign it, and nothing is signed; 0 otherwise.",
        merge=Merge.MAX,
    ),
    Family("artstore_feed_subscribers", Kind.GAUGE, "Trust feeds (WatchTrust) being followed."),
    Family(
        "artstore_feed_lag_seconds",
        Kind.GAUGE,
        "Time since the follower that is furthest behind had been given all that this process knew; 0 while all have "
        "it. What they don't know is as old as this and artstore_ledger_lag_seconds together.",
        merge=Merge.MAX,
    ),
    Family(
        "artstore_signing_key_activate_timestamp_seconds",
        Kind.GAUGE,
        "When the key that signs began to, in seconds since 1970. Absent without one.",
        merge=Merge.MAX,
    ),
    Family(
        "artstore_signing_key_next_rotation_timestamp_seconds",
        Kind.GAUGE,
        "When another key is to sign, in seconds since 1970; 0: none is planned.",
        merge=Merge.MAX,
    ),
    Family(
        "artstore_secrets_expiring_7_days",
        Kind.GAUGE,
        "Last secrets of accounts, neither deleted nor suspended, that expire within 7 days; of those that clients "
        "rotate by a schedule, the ones that were warned of. Absent until it was counted once.",
        merge=Merge.MAX,
    ),
    Family(
        "artstore_secrets_expired",
        Kind.GAUGE,
        "Last secrets that have expired: accounts, neither deleted nor suspended, that have nothing left to prove "
        "themselves by. Absent until it was counted once.",
        merge=Merge.MAX,
    ),
    Family(
        "artstore_secret_deliveries_pending",
        Kind.GAUGE,
        "New secrets that wait to be delivered to a sink. Absent until it was counted once.",
        merge=Merge.MAX,
    ),
    Family(
        "artstore_rotation_steps_total",
        Kind.COUNTER,
        "Steps of scheduled rotation tried, by action and outcome: `done`, or the reason of the failure.",
        {"action": tuple(Action), "outcome": STEP_OUTCOMES},
    ),
    Family(
        "artstore_accounts_imported_total",
        Kind.COUNTER,
        "Accounts of imports, by outcome.",
        {"outcome": ("created", "failed", "unchanged")},
    ),
    Family(
        "artstore_database_pool_connections",
        Kind.GAUGE,
        "Connections to the database, by state.",
        {"state": ("in_use", "idle")},
    ),
    Family(
        "artstore_database_pool_size", Kind.GAUGE, "Connections that the pool may have (ARTSTORE_DATABASE_POOL_SIZE)."
    ),
    Family(
        "artstore_database_pool_wait_seconds",
        Kind.HISTOGRAM,
        "Time from asking the pool for a connection until it was there, or wasn't to be had: a wait for one that is in "
        "use, and the making of a new one.",
    ),
    Family(
        "artstore_database_up",
        Kind.GAUGE,
        "1 while the last poll of the ledger was answered in time, 0 otherwise. Absent until a start has had an "
        "answer, or none.",
        merge=Merge.MIN,
    ),
    Family(
        "artstore_redis_up",
        Kind.GAUGE,
        "1 while Redis answered the last probe in time, 0 otherwise. Absent without Redis.",
        merge=Merge.MIN,
    ),
    Family(
        "artstore_degraded",
        Kind.GAUGE,
        "1 in outage mode: the database counts as down, warm accounts get short tokens from memory until the outage "
        "window ends, and everybody else nothing. Absent until a start has read the ledger.",
        merge=Merge.MAX,
    ),
    Family(
        "artstore_workers",
        Kind.GAUGE,
        "Worker processes that are ready. Absent with one process, which has no supervisor.",
    ),
    Family(
        "artstore_worker_restarts_total",
        Kind.COUNTER,
        "Worker processes that died and were started again; a rolling restart is none.",
    ),
    Family(
        "artstore_build_info",
        Kind.GAUGE,
        "Always 1; the label is the version that runs.",
        {"version": (version("artstore-grpc"),)},
        Merge.MAX,
    ),
    Family("process_cpu_seconds_total", Kind.COUNTER, "User and system CPU time of the process."),
    Family("process_resident_memory_bytes", Kind.GAUGE, "Resident memory of the process."),
    Family("process_virtual_memory_bytes", Kind.GAUGE, "Virtual memory of the process."),
    Family("process_open_fds", Kind.GAUGE, "File descriptors that the process has open."),
    Family("process_max_fds", Kind.GAUGE, "File descriptors that the process may have open."),
    Family(
        "process_start_time_seconds",
        Kind.GAUGE,
        "When the process started, in seconds since 1970.",
        merge=Merge.MIN,
    ),
)
"""In the order in which docs/metrics.md has them. The process's own are prometheus_client's, from /proc: Linux only."""

BY_NAME = {family.name: family for family in FAMILIES}

MERGES: Mapping[str, Merge] = {family.name: family.merge for family in FAMILIES}
"""How processes' values for a series become one, by the metric's name."""
