"""Queries that dashboards share: over the chosen job and instances, in steps that fit the picture."""

from __future__ import annotations

from panels import OURS, Series

ISSUE = f'method="artstore.identity.v1.TokenService/IssueToken", {OURS}'
FAILED = f'code=~"INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED", {ISSUE}'
SECONDS = "s"
RATE = "reqps"
SHARE = "percentunit"


def rate(metric: str, by: str, matchers: str = OURS) -> str:
    """So many a second."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def rates(metric: str, by: str, matchers: str = OURS, *, where: str = "") -> Series:
    """So many a second, a series for each value of a label; `where` is a condition, such as `> 0`."""
    return Series(f"{rate(metric, by, matchers)} {where}".rstrip(), named(by))


def calls(matchers: str = OURS) -> Series:
    """Calls a second, by the method's name without its service's."""
    query = rate("artstore_calls_total", "method", matchers)
    return Series(f'label_replace({query}, "method", "$1", "method", ".*/(.+)")', named("method"))


def total(metric: str, legend: str) -> Series:
    """So many a second, of all chosen instances."""
    return Series(f"sum(rate({metric}{{{OURS}}}[$__rate_interval]))", legend)


def quantiles(histogram: str, matchers: str, *quantiles: float) -> tuple[Series, ...]:
    """Percentiles over all chosen instances."""
    buckets = f"sum by (le) (rate({histogram}_bucket{{{matchers}}}[$__rate_interval]))"
    return tuple(Series(f"histogram_quantile({each}, {buckets})", f"p{each * 100:g}") for each in quantiles)


def by_instance(metric: str) -> Series:
    """A gauge, of each instance."""
    return Series(f"max by (instance) ({metric}{{{OURS}}})", named("instance"))


def known(metric: str) -> str:
    """A gauge that says the same at every instance, or nothing where it isn't known."""
    return f"max({metric}{{{OURS}}})"


def named(label: str) -> str:
    """The legend of series that a label tells apart."""
    return f"{{{{{label}}}}}"


def budget(bad: str, total: str, allowed: str) -> str:
    """The share of 30 days' budget that is left."""
    return f"1 - ((sum(increase({bad}[30d])) or vector(0)) / sum(increase({total}[30d]))) / {allowed}"


def pace(record: str, allowed: str) -> tuple[Series, ...]:
    """How fast a budget is spent, by the rules that record it; 1 lasts for its 30 days."""
    return tuple(
        Series(f'job:{record}:ratio_rate{window}{{job=~"$job"}} / {allowed}', f"over {window}")
        for window in ("5m", "1h", "6h")
    )
