"""Queries that dashboards share: over the chosen job and instances, in steps that fit the picture."""

from __future__ import annotations

from panels import GREEN, OURS, RED, Series

ISSUE = f'method="artstore.identity.v1.TokenService/IssueToken", {OURS}'
FAILED = f'code=~"INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED", {ISSUE}'
RECORDED = '{job=~"$job"}'
UP_OR_DOWN = (("0", "down", RED), ("1", "up", GREEN))
SECONDS = "s"
RATE = "reqps"
SHARE = "percentunit"


def rate(metric: str, by: str, matchers: str = OURS) -> str:
    """So many a second."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def total(metric: str) -> str:
    """So many a second, of all chosen instances."""
    return f"sum(rate({metric}{{{OURS}}}[$__rate_interval]))"


def short(query: str) -> str:
    """With a method's name alone in place of its full one."""
    return f'label_replace({query}, "method", "$1", "method", ".*/(.+)")'


def quantiles(histogram: str, matchers: str, *quantiles: float) -> tuple[Series, ...]:
    """Percentiles over all chosen instances."""
    buckets = f"sum by (le) (rate({histogram}_bucket{{{matchers}}}[$__rate_interval]))"
    return tuple(Series(f"histogram_quantile({each}, {buckets})", f"p{each * 100:g}") for each in quantiles)


def by_instance(metric: str) -> Series:
    return Series(f"max by (instance) ({metric}{{{OURS}}})", "{{instance}}")


def budget(bad: str, total: str, allowed: str) -> str:
    """The share of 30 days' budget that is left."""
    return f"1 - ((sum(increase({bad}[30d])) or vector(0)) / sum(increase({total}[30d]))) / {allowed}"
