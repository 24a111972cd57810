"""The dashboard *overview*: whether the service keeps its objectives, and how its replicas are."""

from __future__ import annotations

from panels import GREEN, OURS, RED, YELLOW, Board, Panel, Row, Series
from queries import (
    FAILED,
    ISSUE,
    RATE,
    SECONDS,
    SHARE,
    budget,
    by_instance,
    calls,
    named,
    pace,
    quantiles,
    rates,
)
from shared_panels import LEDGER_LAG, up_or_down


def left(title: str, text: str, query: str, runbook: str) -> Panel:
    """What is left of a budget."""
    return Panel(
        title,
        text,
        (Series(query, ""),),
        unit=SHARE,
        width=4,
        kind="stat",
        thresholds=((-1e9, RED), (0.1, YELLOW), (0.5, GREEN)),
        runbook=runbook,
        decimals=1,
    )


def spent(title: str, text: str, series: tuple[Series, ...], runbook: str) -> Panel:
    """How fast it goes; the thresholds are those of the alerts."""
    return Panel(title, text, series, unit="none", thresholds=((6, YELLOW), (14.4, RED)), runbook=runbook)


OBJECTIVES = Row(
    "The objectives",
    (
        left(
            "Error budget left",
            "Of 30 days' budget: 0.1 % of the IssueToken calls may be failed by the service, not by their caller.",
            budget(f"artstore_calls_total{{{FAILED}}}", f"artstore_calls_total{{{ISSUE}}}", "0.001"),
            "ArtstoreIssueTokenErrors",
        ),
        spent(
            "How fast failures spend it",
            "1 is the pace at which a month's budget lasts a month. 14.4 for an hour, or 6 for six, wake somebody.",
            pace("artstore_issue_token_errors", "0.001"),
            "ArtstoreIssueTokenErrors",
        ),
        left(
            "Latency budget left",
            "Of 30 days' budget: 1 % of the IssueToken calls may take longer than 100 ms.",
            f'1 - (1 - sum(increase(artstore_call_duration_seconds_bucket{{le="0.1", {ISSUE}}}[30d])) '
            f"/ sum(increase(artstore_call_duration_seconds_count{{{ISSUE}}}[30d]))) / 0.01",
            "ArtstoreIssueTokenSlow",
        ),
        spent(
            "How fast slow calls spend it",
            "As beside it, for calls of more than 100 ms.",
            pace("artstore_issue_token_slow", "0.01"),
            "ArtstoreIssueTokenSlow",
        ),
    ),
)

OVERVIEW = Board(
    "overview",
    "overview",
    "Whether the service keeps its objectives, and how its replicas are.",
    (
        OBJECTIVES,
        Row(
            "Calls",
            (
                Panel(
                    "Calls",
                    "Calls a second by method, over both doors.",
                    (calls(),),
                    unit=RATE,
                    stacked=True,
                ),
                Panel(
                    "Calls that did not end with OK",
                    "By gRPC code. UNAUTHENTICATED, INVALID_ARGUMENT and mostly RESOURCE_EXHAUSTED are callers' own.",
                    (rates("artstore_calls_total", "code", f'code!="OK", {OURS}'),),
                    unit=RATE,
                    runbook="ArtstoreIssueTokenErrors",
                ),
                Panel(
                    "How long calls take",
                    "Percentiles of the time in the service of IssueToken, over the chosen instances.",
                    quantiles("artstore_call_duration_seconds", ISSUE, 0.5, 0.95, 0.99),
                    unit=SECONDS,
                    thresholds=((0.1, RED),),
                    runbook="ArtstoreIssueTokenSlow",
                ),
            ),
        ),
        Row(
            "Replicas",
            (
                Panel(
                    "Calls by instance",
                    "Balancers spread connections, not calls: an instance with far fewer calls has few clients.",
                    (rates("artstore_calls_total", "instance"),),
                    unit=RATE,
                ),
                Panel(
                    "CPU",
                    "Cores in use. A process has one; close to 1 for each of its workers it is full.",
                    (rates("process_cpu_seconds_total", "instance"),),
                    unit="none",
                    thresholds=((0.9, YELLOW),),
                    runbook="ArtstoreIssueTokenSlow",
                ),
                Panel(
                    "Memory",
                    "Resident memory of the processes.",
                    (by_instance("process_resident_memory_bytes"),),
                    unit="bytes",
                    runbook="ArtstoreRestarting",
                ),
                up_or_down("Up", "Whether Prometheus reaches each instance.", "up", "ArtstoreInstanceDown", width=6),
                Panel(
                    "Versions",
                    "How many instances run which version.",
                    (Series(f"count by (version) (artstore_build_info{{{OURS}}})", named("version")),),
                    width=6,
                    kind="stat",
                    runbook="ArtstoreMixedVersions",
                ),
                Panel(
                    "Calls in progress",
                    "All of an instance. Past ARTSTORE_MAX_IN_FLIGHT at one worker, 1,000 by default, further calls "
                    "are refused.",
                    (by_instance("artstore_calls_in_flight"),),
                    width=6,
                    thresholds=((800, RED),),
                    runbook="ArtstoreTooManyCallsInFlight",
                ),
                Panel(
                    "Open file descriptors",
                    "The share of those that the process may have. Each connection takes one.",
                    (
                        Series(
                            f"max by (instance) (process_open_fds{{{OURS}}} / process_max_fds{{{OURS}}})",
                            named("instance"),
                        ),
                    ),
                    unit=SHARE,
                    width=6,
                    thresholds=((0.8, RED),),
                    runbook="ArtstoreFileDescriptors",
                ),
            ),
        ),
        Row(
            "Who verifies",
            (
                Panel(
                    "Trust feeds",
                    "Verifiers that follow WatchTrust, by instance.",
                    (by_instance("artstore_feed_subscribers"),),
                ),
                Panel(
                    "How far the slowest feed is behind",
                    "Past 3 s a verifier counts itself as cut off.",
                    (by_instance("artstore_feed_lag_seconds"),),
                    unit=SECONDS,
                    thresholds=((3, RED),),
                    runbook="ArtstoreFeedLag",
                ),
                LEDGER_LAG,
            ),
        ),
    ),
)
