"""The dashboard *database*: the database and Redis as each instance sees them."""

from __future__ import annotations

from panels import BLUE, GREEN, OURS, RED, YELLOW, Board, Panel, Row, Series
from queries import RATE, SECONDS, UP_OR_DOWN, by_instance, quantiles, rate, short

DATABASE = Board(
    "database",
    "database",
    "The database and Redis as each instance sees them, and what an outage does.",
    (
        Row(
            "Now",
            (
                Panel(
                    "Database",
                    "Whether the last poll of the ledger was answered in time.",
                    (by_instance("artstore_database_up"),),
                    height=5,
                    kind="stat",
                    thresholds=((0, RED), (1, GREEN)),
                    mappings=UP_OR_DOWN,
                    runbook="ArtstoreDatabaseDown",
                ),
                Panel(
                    "Redis",
                    "Whether the last probe was answered in time. Nothing: there is no Redis in the settings.",
                    (by_instance("artstore_redis_up"),),
                    height=5,
                    kind="stat",
                    thresholds=((0, RED), (1, GREEN)),
                    mappings=UP_OR_DOWN,
                    runbook="ArtstoreRedisDown",
                ),
                Panel(
                    "Outage mode",
                    "Whether tokens are issued from memory, for ARTSTORE_OUTAGE_WINDOW at the most.",
                    (by_instance("artstore_degraded"),),
                    height=5,
                    kind="stat",
                    thresholds=((1, RED),),
                    mappings=(("0", "no", GREEN), ("1", "yes", RED)),
                    runbook="ArtstoreDegraded",
                ),
            ),
        ),
        Row(
            "Outages",
            (
                Panel(
                    "Database and Redis over time",
                    "1 while all chosen instances reach it.",
                    (
                        Series(f"min(artstore_database_up{{{OURS}}})", "database"),
                        Series(f"min(artstore_redis_up{{{OURS}}})", "Redis"),
                    ),
                    most=1.1,
                    runbook="ArtstoreDatabaseDown",
                    named_colours=(("database", BLUE), ("Redis", RED)),
                ),
                Panel(
                    "Tokens by mode",
                    "`outage`: from memory, valid for 5 minutes at the most.",
                    (Series(rate("artstore_tokens_issued_total", "mode"), "{{mode}}"),),
                    unit=RATE,
                    stacked=True,
                    runbook="ArtstoreDegraded",
                    named_colours=(("normal", GREEN), ("outage", RED)),
                ),
                Panel(
                    "Calls refused for a dependency",
                    "That ended with UNAVAILABLE, by method.",
                    (
                        Series(
                            short(rate("artstore_calls_total", "method", f'code="UNAVAILABLE", {OURS}')), "{{method}}"
                        ),
                    ),
                    unit=RATE,
                    runbook="ArtstoreIssueTokenErrors",
                ),
            ),
        ),
        Row(
            "The pool",
            (
                Panel(
                    "Connections",
                    "Of all chosen instances' pools; the line is what they may have.",
                    (
                        Series(f"sum by (state) (artstore_database_pool_connections{{{OURS}}})", "{{state}}"),
                        Series(f"sum(artstore_database_pool_size{{{OURS}}})", "size"),
                    ),
                    runbook="ArtstoreDatabasePoolWait",
                    named_colours=(("in_use", BLUE), ("idle", GREEN), ("size", RED)),
                ),
                Panel(
                    "Waits for a connection",
                    "Until it was there, or wasn't to be had; making a new one is among it.",
                    quantiles("artstore_database_pool_wait_seconds", OURS, 0.5, 0.99),
                    unit=SECONDS,
                    thresholds=((0.1, YELLOW),),
                    runbook="ArtstoreDatabasePoolWait",
                ),
                Panel(
                    "Connections asked for",
                    "A second, by instance; each is a transaction or a statement.",
                    (Series(rate("artstore_database_pool_wait_seconds_count", "instance"), "{{instance}}"),),
                    unit="ops",
                ),
            ),
        ),
        Row(
            "What asks it",
            (
                Panel(
                    "Accounts read from the database",
                    "A second, by instance: look-ups that memory had no answer for.",
                    (
                        Series(
                            rate(
                                "artstore_cache_lookups_total", "instance", f'cache="accounts", outcome="miss", {OURS}'
                            ),
                            "{{instance}}",
                        ),
                    ),
                    unit="ops",
                ),
                Panel(
                    "Calls that change something",
                    "A second, by method.",
                    (
                        Series(
                            short(
                                rate(
                                    "artstore_calls_total",
                                    "method",
                                    'method=~".+/(Create|Update|Delete|Undelete|Suspend|Activate|Rotate|Revoke|Import|'
                                    f'Prepare|Retire).*", {OURS}',
                                )
                            ),
                            "{{method}}",
                        ),
                    ),
                    unit=RATE,
                    stacked=True,
                ),
                Panel(
                    "How old an instance's knowledge is",
                    "Every change committed before then is known. A quarter of a second in good order.",
                    (by_instance("artstore_ledger_lag_seconds"),),
                    unit=SECONDS,
                    thresholds=((5, RED),),
                    runbook="ArtstoreLedgerLag",
                ),
            ),
        ),
    ),
)
