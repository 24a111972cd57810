"""The dashboard *overview*: whether the service keeps its objectives, and how its replicas are."""

from __future__ import annotations

from panels import GREEN, OURS, RED, YELLOW, Board, Panel, Row, Series
from queries import (
    FAILED,
    ISSUE,
    RATE,
    RECORDED,
    SECONDS,
    SHARE,
    UP_OR_DOWN,
    budget,
    by_instance,
    quantiles,
    rate,
    short,
)

OBJECTIVES = Row(
    "The objectives",
    (
        Panel(
            "Error budget left",
            "Of 30 days' budget: 0.1 % of the IssueToken calls may be failed by the service, not by their caller.",
            (Series(budget(f"artstore_calls_total{{{FAILED}}}", f"artstore_calls_total{{{ISSUE}}}", "0.001"), ""),),
            unit=SHARE,
            width=4,
            kind="stat",
            thresholds=((-1e9, RED), (0.1, YELLOW), (0.5, GREEN)),
            runbook="ArtstoreIssueTokenErrors",
            decimals=1,
        ),
        Panel(
            "How fast failures spend it",
            "1 is the pace at which a month's budget lasts a month. 14.4 for an hour, or 6 for six, wake somebody.",
            tuple(
                Series(f"job:artstore_issue_token_errors:ratio_rate{window}{RECORDED} / 0.001", f"over {window}")
                for window in ("5m", "1h", "6h")
            ),
            unit="none",
            thresholds=((6, YELLOW), (14.4, RED)),
            runbook="ArtstoreIssueTokenErrors",
        ),
        Panel(
            "Latency budget left",
            "Of 30 days' budget: 1 % of the IssueToken calls may take longer than 100 ms.",
            (
                Series(
                    f'1 - (1 - sum(increase(artstore_call_duration_seconds_bucket{{le="0.1", {ISSUE}}}[30d])) '
                    f"/ sum(increase(artstore_call_duration_seconds_count{{{ISSUE}}}[30d]))) / 0.01",
                    "",
                ),
            ),
            unit=SHARE,
            width=4,
            kind="stat",
            thresholds=((-1e9, RED), (0.1, YELLOW), (0.5, GREEN)),
            runbook="ArtstoreIssueTokenSlow",
            decimals=1,
        ),
        Panel(
            "How fast slow calls spend it",
            "As beside it, for calls of more than 100 ms.",
            tuple(
                Series(f"job:artstore_issue_token_slow:ratio_rate{window}{RECORDED} / 0.01", f"over {window}")
                for window in ("5m", "1h", "6h")
            ),
            unit="none",
            thresholds=((6, YELLOW), (14.4, RED)),
            runbook="ArtstoreIssueTokenSlow",
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
                    (Series(short(rate("artstore_calls_total", "method")), "{{method}}"),),
                    unit=RATE,
                    stacked=True,
                ),
                Panel(
                    "Calls that did not end with OK",
                    "By gRPC code. UNAUTHENTICATED, INVALID_ARGUMENT and mostly RESOURCE_EXHAUSTED are callers' own.",
                    (Series(rate("artstore_calls_total", "code", f'code!="OK", {OURS}'), "{{code}}"),),
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
                    (Series(rate("artstore_calls_total", "instance"), "{{instance}}"),),
                    unit=RATE,
                ),
                Panel(
                    "CPU",
                    "Cores in use. A process has one; close to 1 for each of its workers it is full.",
                    (Series(rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
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
                Panel(
                    "Up",
                    "Whether Prometheus reaches each instance.",
                    (Series(f"max by (instance) (up{{{OURS}}})", "{{instance}}"),),
                    width=6,
                    kind="stat",
                    thresholds=((0, RED), (1, GREEN)),
                    mappings=UP_OR_DOWN,
                    runbook="ArtstoreInstanceDown",
                ),
                Panel(
                    "Versions",
                    "How many instances run which version.",
                    (Series(f"count by (version) (artstore_build_info{{{OURS}}})", "{{version}}"),),
                    width=6,
                    kind="stat",
                    runbook="ArtstoreMixedVersions",
                ),
                Panel(
                    "Calls in progress",
                    "Past ARTSTORE_MAX_IN_FLIGHT, 1,000 by default, further calls are refused.",
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
                            "{{instance}}",
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
