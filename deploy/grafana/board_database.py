"""The dashboard *database*: the database and Redis as each instance sees them."""

from __future__ import annotations

from panels import BLUE, GREEN, OURS, RED, YELLOW, Board, Panel, Row, Series
from queries import RATE, SECONDS, by_instance, calls, quantiles, rates
from shared_panels import LEDGER_LAG, tokens_by_mode, up_or_down

DATABASE = Board(
    "database",
    "database",
    "The database and Redis as each instance sees them, and what an outage does.",
    (
        Row(
            "Now",
            (
                up_or_down(
                    "Database",
                    "Whether the last poll of the ledger was answered in time.",
                    "artstore_database_up",
                    "ArtstoreDatabaseDown",
                    height=5,
                ),
                up_or_down(
                    "Redis",
                    "Whether the last probe was answered in time. Nothing: there is no Redis in the settings.",
                    "artstore_redis_up",
                    "ArtstoreRedisDown",
                    height=5,
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
                tokens_by_mode("Tokens by mode", "`outage`: from memory, valid for 5 minutes at the most."),
                Panel(
                    "Calls refused for a dependency",
                    "That ended with UNAVAILABLE, by method.",
                    (calls(f'code="UNAVAILABLE", {OURS}'),),
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
                    (rates("artstore_database_pool_wait_seconds_count", "instance"),),
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
                    (rates("artstore_cache_lookups_total", "instance", f'cache="accounts", outcome="miss", {OURS}'),),
                    unit="ops",
                ),
                Panel(
                    "Calls that change something",
                    "A second, by method.",
                    (
                        calls(
                            'method=~".+/(Create|Update|Delete|Undelete|Suspend|Activate|Rotate|Revoke|Import|'
                            f'Prepare|Retire).*", {OURS}'
                        ),
                    ),
                    unit=RATE,
                    stacked=True,
                ),
                LEDGER_LAG,
            ),
        ),
    ),
)
