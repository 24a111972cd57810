"""Panels that several dashboards have."""

from __future__ import annotations

from panels import GREEN, RED, Panel
from queries import RATE, SECONDS, by_instance, rates

LEDGER_LAG = Panel(
    "How old an instance's knowledge is",
    "Every change committed before then is known. A quarter of a second in good order.",
    (by_instance("artstore_ledger_lag_seconds"),),
    unit=SECONDS,
    thresholds=((5, RED),),
    runbook="ArtstoreLedgerLag",
)


def tokens_by_mode(title: str, text: str) -> Panel:
    return Panel(
        title,
        text,
        (rates("artstore_tokens_issued_total", "mode"),),
        unit=RATE,
        stacked=True,
        runbook="ArtstoreDegraded",
        named_colours=(("normal", GREEN), ("outage", RED)),
    )


def denials(title: str, text: str) -> Panel:
    return Panel(
        title,
        text,
        (rates("artstore_denials_total", "kind", where="> 0"),),
        unit=RATE,
        runbook="ArtstoreDenialsSurge",
    )


def up_or_down(title: str, text: str, metric: str, runbook: str, *, width: int = 8, height: int = 8) -> Panel:
    """What a gauge of 1 or 0 says of each instance."""
    return Panel(
        title,
        text,
        (by_instance(metric),),
        width=width,
        height=height,
        kind="stat",
        thresholds=((0, RED), (1, GREEN)),
        mappings=(("0", "down", RED), ("1", "up", GREEN)),
        runbook=runbook,
    )
